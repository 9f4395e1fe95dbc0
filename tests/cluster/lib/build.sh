# What is built into the cache. Beside each result lies a stamp: the hash of all that it is made from. A fresh clone has
# new modification times but the same contents, so that it finds everything up to date.
# shellcheck shell=bash disable=SC2154

go_flags=(-trimpath -buildvcs=false)

# Each line: a binary, the folder with its go.mod, its package.
go_binaries() { cat <<'TEXT'
etcd tools/k8s go.etcd.io/etcd/server/v3
kube-apiserver tools/k8s k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager tools/k8s k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler tools/k8s k8s.io/kubernetes/cmd/kube-scheduler
kubelet tools/k8s k8s.io/kubernetes/cmd/kubelet
kube-proxy tools/k8s k8s.io/kubernetes/cmd/kube-proxy
kubectl tools/k8s k8s.io/kubernetes/cmd/kubectl
csi-snapshotter tools/k8s github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter
snapshot-controller tools/k8s github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller
helm tools/k8s helm.sh/helm/v4/cmd/helm
csi-provisioner tools/provisioner github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner
csi csi .
csi-sanity tools/sanity github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity
TEXT
}

hash() { sha256sum | cut -c 1-64; }

# contents FILE...: names and contents of files, or of all files of folders, for a stamp.
contents() {
  (cd "$here" && find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
}

fresh() { [ -e "$1" ] && [ "$(cat "$1.stamp" 2> /dev/null)" = "$2" ]; }

# make_once FILE STAMP COMMAND...: runs the command, which writes to the path given as its last argument, unless FILE is
# fresh. A reader never sees half a file, and a crash leaves either the old pair or one that is made again.
make_once() {
  local file=$1 stamp=$2 part log; shift 2
  ! fresh "$file" "$stamp" || return 0
  part=$(basename "$file")
  if [ -n "${only_look-}" ]; then stale+=("$part"); return; fi
  log=$cache/log/$part.log
  rm -rf "$file~"
  begin_part "$part"
  "$@" "$file~" > "$log" 2>&1 || { end_part; fail "building $part failed: $(tail -n 3 "$log"); all of it: $log"; }
  end_part
  rm -rf "$file.stamp"
  [ ! -d "$file" ] || rm -rf "$file"
  mv "$file~" "$file"
  echo "$stamp" > "$file.stamp~" && mv "$file.stamp~" "$file.stamp"
}

kubernetes_version() { sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$here/tools/k8s/go.mod"; }

go_build() {
  local module=$1 package=$2 ldflags=$3 out=$4
  CGO_ENABLED=0 go -C "$here/$module" build "${go_flags[@]}" -ldflags "$ldflags" -o "$out" "$package"
}

build_go() {
  local binary module package ldflags version minor
  version=$(kubernetes_version) minor=${version#v1.} minor=${minor%%.*}
  while read -r binary module package; do
    ldflags="-s -w"
    if [[ $package == k8s.io/* ]]; then
      ldflags+=" -X k8s.io/component-base/version.gitVersion=$version"
      ldflags+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$minor"
    fi
    make_once "$bin/$binary" "$(go_stamp "$module" "$package" "$ldflags")" go_build "$module" "$package" "$ldflags"
  done < <(go_binaries)
}

# go_stamp MODULE PACKAGE LDFLAGS: the modules' contents are pinned by go.sum, our own sources are hashed.
go_stamp() {
  local module=$1 package=$2 ldflags=$3
  local -a sources=("$module/go.mod" "$module/go.sum")
  [ "$package" != . ] || sources+=("$here/$module"/*.go)
  { contents "${sources[@]#"$here/"}"; echo "$package ${go_flags[*]} $ldflags"; } | hash
}

# The definitions of VolumeSnapshot and its kin come with the client's module.
build_crds() {
  make_once "$cache/crds" "$(contents tools/k8s/go.mod tools/k8s/go.sum | hash)" copy_crds
}
copy_crds() {
  local module out=$1
  module=$(cd "$here/tools/k8s" && go mod download github.com/kubernetes-csi/external-snapshotter/client/v8 &&
    go list -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8) || return 1
  mkdir "$out" && install -m 644 "$module"/config/crd/snapshot.storage.k8s.io_*.yaml \
    "$module"/config/crd/groupsnapshot.storage.k8s.io_*.yaml "$out"
}

build_c() {
  local source
  for source in box/enter.c images/pause.c; do
    make_once "$bin/$(basename "$source" .c)" "$(contents "$source" | hash)" compile "$here/$source"
  done
}
compile() { gcc -static -Os -Wall -Wextra -o "$2" "$1"; }

# Only the checker of the package: the package itself would start a server. 19 MB, some seconds.
build_promtool() {
  make_once "$bin/promtool" "promtool of Debian's prometheus" extract_promtool
}
extract_promtool() (
  folder=$1.d
  rm -rf "$folder" && mkdir "$folder" && cd "$folder" &&
    apt-get update --quiet=2 && apt-get download --quiet=2 -o APT::Sandbox::User=root prometheus &&
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract --file - ./usr/bin/promtool &&
    mv usr/bin/promtool "$1" && rm -rf "$folder"
)

# A small image is a layer of given files, made by mkimg.py; the others are made by buildah on a Debian base. What comes
# from Debian packages is as new as the day it was built: remove the archive to have it built again.
build_images() {
  local mkimg
  mkimg=$(contents images/mkimg.py)
  make_once "$images/pause.tar" "$({ echo "$mkimg"; contents images/pause.c; } | hash)" pause_image
  make_once "$images/app.tar" "$({ echo "$mkimg"; contents images/app; } | hash)" app_image
  make_once "$images/postgres.tar" "$(contents images/postgres images/debian.sh | hash)" \
    bash "$here/images/debian.sh" "$cache/buildah" "$here/images/postgres" localhost/postgres:15
}

mkimg() { python3 "$here/images/mkimg.py" "$@"; }
pause_image() { mkimg --ref localhost/pause:1 --entrypoint /pause --file "$bin/pause=/pause" -- "$1"; }
app_image() {
  local links
  links=$(busybox --list | grep -v '^busybox$' | sed 's#^#/bin/#' | paste -sd ,) || return 1
  mkimg --ref localhost/app:1 --entrypoint /bin/app --open-dir /run/lock-app --file "/bin/busybox=/bin/busybox" \
    --link "/bin/busybox=$links" --file "$here/images/app/app=/bin/app" --file "$here/images/app/freeze=/bin/freeze" \
    --file "$here/images/app/thaw=/bin/thaw" -- "$1"
}

# product BINARY: an image of one static binary, as it is shipped: no shell, not root.
product() {
  [ -f "$1" ] || fail "there is no binary $1"
  install_packages buildah binutils
  ! readelf --program-headers "$1" 2> /dev/null | grep -q INTERP || fail "$1 is not a static binary"
  mkdir -p "$images"
  local out=$images/sts-backup.tar ref=localhost/sts-backup:dev
  bash "$here/images/product.sh" "$cache/buildah" "$here/../../Containerfile" "$(dirname "$1")" "$ref" "$out.$$" ||
    fail "making $out failed"
  mv "$out.$$" "$out"
  say "made $out ($ref)"
  pid1 > /dev/null || return 0
  import "$out"
  say "imported it"
}

build_steps() {
  build_c
  build_go
  build_crds
  build_promtool
  build_images
}

# find_stale lists in `stale` the parts that are to be built.
find_stale() {
  stale=()
  mkdir -p "$bin" "$images" "$cache/log"
  only_look=yes build_steps
}

# build_all looks first: a machine with a full cache needs neither Go nor a compiler.
build_all() {
  find_stale
  [ ${#stale[@]} -gt 0 ] || return 0
  announce
  install_packages "${build_packages[@]}"
  build_steps
  say "built ${#stale[@]} parts in $(minutes $((SECONDS - build_begin)))"
}

build() { locked "$cache/locks/build" build_all; }
