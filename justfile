set shell := ["bash", "-euo", "pipefail", "-c"]

cluster := justfile_directory() / "tests/cluster/cluster"
static := "-C target-feature=+crt-static -C relocation-model=static -C linker=link/cc"
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# List the recipes.
default:
    @just --list --unsorted

# Build the program.
build:
    cargo build

# Everything that needs no cluster and no time: format, lints, laws, generated files, dependency budget.
check: forbid
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    @just drift budget
    for file in .ci/run tests/run tests/cluster/{cluster,demo,*/*.sh} link/cc link/profile; do bash -n "$file"; done

# Units, then the short tier on a cluster of its own (brought up for it, and taken down again).
test:
    tests/run short

# Every case of every sweep (of the pairs of restores a sample), each failure with the line that shows it alone.
sweep:
    SSB_SWEEP=all cargo test --locked --test it -- --nocapture

# Mutants that no fast test sees: all of retention and schedules, and of the backup's planner a share. In half an hour.
mutants shard="0/8":
    @command -v cargo-mutants > /dev/null || { echo "cargo-mutants is missing: cargo install --locked cargo-mutants" >&2; exit 1; }
    @mkdir -p {{ target }}/mutants/plan {{ target }}/mutants/rules
    export SSB_SWEEP=few CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0; \
    cargo mutants --no-shuffle --timeout 120 -o {{ target }}/mutants/rules \
      -f src/plan/retention.rs -f src/plan/schedule.rs -C=--locked -C=--lib -- -- retention schedule; \
    cargo mutants --no-shuffle --timeout 120 -o {{ target }}/mutants/plan --shard {{ shard }} --sharding round-robin \
      -f src/plan/backup.rs -C=--locked -C=--lib -C=--test=it -- -- plan::backup sweep:: two:: --skip restore --skip watcher --skip without_an_object

# Everything, long.
e2e:
    tests/run long

# A random hour on a cluster: kills, deletions, edits, rights taken away, while ten StatefulSets are backed up and restored.
soak minutes="60":
    SSB_SOAK={{ minutes }} tests/run soak

# What is measured, on a cluster: the freeze against a bare cut. Prints ratios, fails above the bar.
bench:
    tests/run bench

# The main job, shown: PostgreSQL under load is backed up, damaged and restored. On a cluster that is brought up for it (the first time builds it, 15-20 minutes), or on the one of SSB_TEST_KUBECONFIG.
demo:
    if tests/cluster/demo existing; then tests/cluster/demo check && just program; else just cluster-up image; fi
    tests/cluster/demo {{ target }}/x86_64-unknown-linux-gnu/dist/sts-backup

# Bring up the embedded cluster: a Ready node with CSI, images and a kubeconfig (the first time builds it, 15-20 minutes).
cluster-up:
    {{ cluster }} up

# Take it down and leave nothing behind; what was built is kept.
cluster-down:
    {{ cluster }} down

# Write what is generated from the types.
generate:
    cargo run --quiet --locked -- generate crds > manifests/crds.yaml
    cargo run --quiet --locked -- generate policies > manifests/policies.yaml
    cargo run --quiet --locked -- generate rbac > manifests/rbac.yaml
    cargo run --quiet --locked -- generate install > manifests/install.yaml
    mkdir -p charts/sts-backup/files
    cp manifests/{crds,policies,rbac}.yaml charts/sts-backup/files/

# Fail when a committed generated file differs from what would be generated.
drift:
    diff -u manifests/crds.yaml <(cargo run --quiet --locked -- generate crds)
    diff -u manifests/policies.yaml <(cargo run --quiet --locked -- generate policies)
    diff -u manifests/rbac.yaml <(cargo run --quiet --locked -- generate rbac)
    diff -u manifests/install.yaml <(cargo run --quiet --locked -- generate install)
    for file in crds policies rbac; do diff -u manifests/$file.yaml charts/sts-backup/files/$file.yaml; done

# The shipped program: small and static.
program:
    RUSTFLAGS="{{ static }}" cargo build --locked --profile dist --target x86_64-unknown-linux-gnu

# The same in an image from scratch, by buildah; it goes into the embedded cluster when that is up. With docker alone: Containerfile.source.
image: program
    {{ cluster }} product {{ target }}/x86_64-unknown-linux-gnu/dist/sts-backup

# Which functions the watcher runs, written anew for the linker, with valgrind on a cluster that is up. Then `just image`.
profile:
    RUSTFLAGS="{{ static }}" CARGO_PROFILE_DIST_STRIP=none \
      cargo build --locked --profile dist --target x86_64-unknown-linux-gnu --target-dir {{ target }}/profile
    link/profile {{ target }}/profile/x86_64-unknown-linux-gnu/dist/sts-backup

# Breaches of the laws in src/lib.rs, as far as grep can see them.
forbid:
    @! grep -rnE 'Timestamp::now|SystemTime|Instant::now|tokio::|kube::(Client|Api)\b|rand::|async fn' src/plan src/api
    @! grep -rnE 'patch_status|replace_status' src --include='*.rs' | grep -vE '^src/step/record(/watched)?\.rs'
    @! grep -rnE 'use crate::(step|run|watch|cli)' src/api src/plan
    @! grep -rnE 'use crate::(run|watch|cli)' src/step
    @! grep -rnE 'dbg!|todo!|unimplemented!|FIXME' src tests --include='*.rs'

# The dependency budget: packages in the lock file and in the program, and one version each of the big ones.
budget:
    @test "$(grep -c '^name = ' Cargo.lock)" -le 310 || { echo "Cargo.lock has more than 310 packages" >&2; exit 1; }
    @test "$(cargo tree --locked -e normal --target x86_64-unknown-linux-gnu --prefix none | sed 's/ (\*)$//' | sort -u | wc -l)" -le 230
    @for crate in kube k8s-openapi rustls hyper tokio; do \
        test "$(grep -c "^name = \"$crate\"$" Cargo.lock)" = 1 || { echo "more than one version of $crate" >&2; exit 1; }; done

# Read the whole change once more: what differs from the last release or the given revision.
review base="HEAD~1":
    git diff --stat {{ base }}
    git diff {{ base }}
