#!/bin/bash
# prove.sh: brings a cluster up, proves the CSI driver and the kit on it, and takes it down. About 5 minutes. What it
# proves is what tests rely on: that snapshots are cuts at one instant whose time is known, that each fault of
# control.json happens, that a killed driver loses nothing, and that clusters leave nothing behind.
# Ends with `N passed, M failed`; after a failure the cluster stays up, and the next run begins with taking it down.
# shellcheck disable=SC2317 # many functions are called by name
set -Eeuo pipefail
cluster=$(cd "$(dirname "$0")/.." && pwd)/cluster
export SSB_CLUSTER_NAME=${SSB_CLUSTER_NAME:-prove}
unset SSB_CLUSTER_DIR
node=$SSB_CLUSTER_NAME second=${SSB_CLUSTER_NAME}2
dir=/var/tmp/sts-backup/$node
bin=${SSB_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sts-backup}/bin
sim=sim.csi.sts-backup.io two=two.csi.sts-backup.io
state=$dir/csi/$sim log=$dir/log/$sim-driver.log
scratch=$(mktemp -d)
passed=0

finish() {
  local status=$?
  rm -rf "$scratch"
  if [ $status = 0 ]; then echo "$passed passed, 0 failed"; else echo "$passed passed, 1 failed"; fi
}
trap finish EXIT
trap 'echo "FAIL ${SECONDS}s line $LINENO: $BASH_COMMAND" >&2' ERR
ok() { passed=$((passed + 1)); echo "ok   ${SECONDS}s  $*"; }
die() { echo "FAIL ${SECONDS}s  $*" >&2; exit 1; }

# until_true SECONDS WHAT COMMAND...: repeats the command until it succeeds.
until_true() {
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@"; do
    [ $SECONDS -lt $end ] || die "not in time: $what"
    sleep 0.2
  done
}

# --- asking the cluster ---
k() { timeout 60 "$cluster" kubectl "$@"; }
apply() { k apply --filename - > /dev/null; }
inside() { "$cluster" enter "$@"; }
get() { k get "$1" "$2" --output "jsonpath={$3}"; }
is() { [ "$(get "$1" "$2" "$3" 2> /dev/null)" = "$4" ]; }
gone() { ! k get "$1" "$2" > /dev/null 2>&1; }
event() { k get events --field-selector "involvedObject.name=$1" --output 'jsonpath={..message}' | grep -q "$2"; }
has_cut() { [ -n "$(get volumesnapshot "$1" .status.creationTime)" ]; }
running() { k rollout status "statefulset/$1" --timeout=55s > /dev/null; }
pod_ready() { k wait "pod/$1" --for=condition=Ready --timeout=50s > /dev/null; }
bound() { until_true "${2:-40}" "claim $1 Bound" is pvc "$1" .status.phase Bound; }
ready() { until_true "${2:-60}" "snapshot $1 ready" is volumesnapshot "$1" .status.readyToUse true; }
handle() {
  get volumesnapshotcontent "$(get volumesnapshot "$1" .status.boundVolumeSnapshotContentName)" .status.snapshotHandle
}
pv() { get pvc "$1" .spec.volumeName; }
contents() { k get volumesnapshotcontent --output json; }

# --- asking and steering the driver ---
# control [JSON]: what the driver is to do from now on; nothing makes it healthy.
control() {
  local healthy='{}'
  echo "${1:-$healthy}" > "$state/control.tmp"
  mv "$state/control.tmp" "$state/control.json"
}
# journal OP FIELD [FILTER]: the field of the journal's lines with that op which match the filter.
journal() { jq -r --arg op "$1" "select(.op == \$op ${3:+and $3}) | $2" "$state/journal.jsonl"; }
logged() { [ "$(grep -c -- "$1" "$log")" -ge "${2:-1}" ]; }

# --- objects ---
# snapshot NAME CLAIM [CLASS]
snapshot() { cat <<YAML
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: $1}
spec: {volumeSnapshotClassName: ${3:-csi}, source: {persistentVolumeClaimName: $2}}
YAML
}

# claim NAME KIND SOURCE [SIZE [CLASS [ANNOTATIONS]]]: from a VolumeSnapshot, a PersistentVolumeClaim, or `- -`.
claim() {
  local source=
  case $2 in
    VolumeSnapshot) source="dataSource: {apiGroup: snapshot.storage.k8s.io, kind: $2, name: $3}, " ;;
    PersistentVolumeClaim) source="dataSource: {kind: $2, name: $3}, " ;;
  esac
  cat <<YAML
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $1, annotations: {${6-}}}
spec: {$source storageClassName: ${5:-csi}, accessModes: [ReadWriteOnce], resources: {requests: {storage: ${4:-10Mi}}}}
YAML
}

# pod NAME COMMAND CLAIM...: mounts each claim at /CLAIM. COMMAND is a YAML list; READONLY=true mounts read-only.
pod() {
  local name=$1 command=$2 mounts='' volumes='' claim; shift 2
  for claim; do
    mounts+="{name: $claim, mountPath: /$claim}, "
    volumes+="{name: $claim, persistentVolumeClaim: {claimName: $claim, readOnly: ${READONLY:-false}}}, "
  done
  cat <<YAML
---
apiVersion: v1
kind: Pod
metadata: {name: $name}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: 'localhost/app:1', imagePullPolicy: Never, command: $command, volumeMounts: [$mounts]}
  volumes: [$volumes]
YAML
}

# app NAME CLASS TEMPLATE...: three replicas that append to a log on each template's volume.
app() {
  local name=$1 class=$2 mounts='' templates='' template; shift 2
  for template; do
    mounts+="{name: $template, mountPath: /$template}, "
    templates+="{metadata: {name: $template}, spec: {storageClassName: $class, accessModes: [ReadWriteOnce], "
    templates+="resources: {requests: {storage: 10Mi}}}}, "
  done
  cat <<YAML
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: $name}
spec:
  serviceName: $name
  podManagementPolicy: Parallel
  replicas: 3
  selector: {matchLabels: {app: $name}}
  template:
    metadata: {labels: {app: $name}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: localhost/app:1
        imagePullPolicy: Never
        volumeMounts: [$mounts]
        command:
        - sh
        - -c
        - while :; do for d in $*; do echo \$(hostname) \$d \$(date +%s.%N) >> /\$d/log; done; sleep 0.2; done
  volumeClaimTemplates: [$templates]
YAML
}

each_of_nine() { local i c; for i in 0 1 2; do for c in a b c; do "$@" "$c" "$i"; done; done; }

# --- the proofs ---

conformance() {
  local run=/run/sanity summary
  inside mkdir -p $run
  "$cluster" enter "$bin/csi" --name sanity.csi.sts-backup.io --endpoint unix://$run/csi.sock --state "$dir/sanity" \
    > "$scratch/sanity-driver" 2>&1 &
  local driver=$!
  until_true 20 "the driver for csi-sanity" grep -q serves "$scratch/sanity-driver"
  inside "$bin/csi-sanity" --csi.endpoint unix://$run/csi.sock --csi.mountdir $run/target \
    --csi.stagingdir $run/staging --ginkgo.no-color > "$scratch/sanity" 2>&1 ||
    die "csi-sanity: $(tail -n 40 "$scratch/sanity")"
  kill $driver
  wait $driver || die "the driver ended with an error"
  summary=$(grep -o '[0-9]* Passed | 0 Failed.*' "$scratch/sanity")
  ok "csi-sanity: $summary"
}

stateful_sets() {
  app web csi a b c | apply
  app late csi-wffc d | apply
  until_true 60 "pods" running web
  until_true 60 "pods" running late
  ok "three replicas on Immediate (9 claims) and three on WaitForFirstConsumer (3 claims) run"
}

snapshot_of() { snapshot "s-$1-$2" "$1-web-$2"; }
ready_of() { ready "s-$1-$2"; }
nine_created() { [ "$(contents | jq '[.items[].status.creationTime // empty] | length')" -ge 9 ]; }
none_ready() { [ "$(contents | jq '[.items[].status | select(.readyToUse)] | length')" = 0 ]; }

nine_cuts() {
  control '{"cutDelay": "2s", "readyDelay": "20s"}'
  each_of_nine snapshot_of | apply
  until_true 20 "creation times" nine_created
  local begin=$SECONDS overlap spread
  none_ready || die "ready too early"
  each_of_nine ready_of
  ok "9 snapshots: all contents had creationTime $((SECONDS - begin)) s before the last one was ready"

  overlap=$(jq -s '[.[] | select(.op == "cut")] | (map(.end) | min) as $first | map(select(.begin < $first)) | length' \
    "$state/journal.jsonl")
  [ "$overlap" = 9 ] || die "only $overlap cuts were under way at once"
  contents | jq -r '.items[].status | "\(.snapshotHandle) \(.creationTime)"' | sort > "$scratch/contents"
  journal cut '"\(.snapshot) \(.cut)"' | sort > "$scratch/journal"
  cmp "$scratch/contents" "$scratch/journal"
  spread=$(jq -s '[.[] | select(.op == "cut").cut] | (max - min) / 1e6 | floor' "$state/journal.jsonl")
  ok "journal: 9 cuts at once, spread $spread ms; each content's creationTime is the cut to the nanosecond"
}

restore_of() { claim "r-$1-$2" VolumeSnapshot "s-$1-$2"; }
restore_bound() { bound "r-$1-$2"; }
same_as_source() {
  local restored=/r-$1-$2/log source=/$1/log sum size
  read -r sum size <<< "$(k exec reader -- sh -c "md5sum < $restored | cut -c1-32; wc -c < $restored" | xargs)"
  [ "$size" -gt 0 ] || die "claim r-$1-$2 is empty"
  [ "$sum" = "$(k exec "web-$2" -- sh -c "head -c $size $source | md5sum | cut -c1-32")" ] ||
    die "claim r-$1-$2 differs"
}

nine_restores() {
  local begin took
  control '{"cloneDelay": "5s"}'
  begin=$(date +%s%3N)
  each_of_nine restore_of | apply
  each_of_nine restore_bound
  took=$(($(date +%s%3N) - begin))
  ((took > 5000 && took < 20000)) || die "9 restores with cloneDelay 5 s took $took ms"
  ok "9 restores with cloneDelay 5 s Bound after $took ms"

  control
  pod reader '[sleep, "1000"]' r-{a,b,c}-{0,1,2} | apply
  pod_ready reader
  each_of_nine same_as_source
  ok "9 restored claims in a pod: each equals its source up to the cut"

  READONLY=true pod looker '[sleep, "1000"]' r-a-0 | apply
  pod_ready looker
  k exec looker -- sh -c 'cat /r-a-0/log > /dev/null && ! echo x >> /r-a-0/log' 2> /dev/null ||
    die "a read-only mount can be written"
  k exec reader -- sh -c 'echo x >> /r-a-0/log'
  k delete pod looker reader --wait=true > /dev/null
  ok "a read-only mount is read-only, the same volume's other mount is not"
}

# counter SNAPSHOT FILE: what the application's counter was at the cut.
counter() { echo $((10#$(inside cat "$state/pool/snapshots/$(handle "$1")/$2/counter"))); }

atomic_cuts() {
  local i a b values=''
  { claim count - -; claim count-two - -; } | apply
  pod counter '[sh, -c, "mkdir -p /count/a /count/b; exec app /count/a /count/b /count-two"]' count count-two | apply
  pod_ready counter
  until_true 20 "the first counts" k exec counter -- test -e /count-two/counter
  for i in $(seq 20); do snapshot "n-$i" count; done | apply
  for i in $(seq 20); do
    ready "n-$i"
    a=$(counter "n-$i" a) b=$(counter "n-$i" b) values+="$a/$b "
    [ $((a - b)) = 0 ] || [ $((a - b)) = 1 ] || die "not atomic: a=$a b=$b"
  done
  ok "20 snapshots of an application that counts on with fsync: never more than one apart: $values"

  k exec counter -- freeze
  { snapshot frozen count; snapshot frozen-two count-two; } | apply
  ready frozen; ready frozen-two
  a=$(counter frozen a) b=$(counter frozen b)
  [ "$a $a" = "$b $(counter frozen-two .)" ] || die "not the same everywhere: $a $b"
  k exec counter -- thaw
  until_true 10 "counting on after thaw" k exec counter -- sh -c "[ \$(sed 's/^0*//' /count-two/counter) -gt $a ]"
  ok "freeze and thaw: cut between them, both volumes have the same count"
  k delete pod counter --wait=true > /dev/null
  k delete volumesnapshot frozen frozen-two $(seq -f n-%g 20) > /dev/null
}

faults_of_snapshots() {
  control '{"failCreateSnapshot": 2}'
  snapshot fails a-web-0 | apply
  ready fails
  [ "$(grep -c 'fails because control.json' "$log")" = 2 ] || die "failed not just twice"
  ok "failCreateSnapshot: two fail, the third is ready"

  control '{"neverReady": true}'
  snapshot never a-web-0 | apply
  until_true 20 "creation time" has_cut never
  until_true 60 "the sidecar's questions" logged "$(handle never)" 3
  is volumesnapshot never .status.readyToUse false || die "ready in spite of neverReady"
  control
  ready never
  ok "neverReady: asked again and again not ready, until it is taken back"

  control '{"restoreSizeExtra": 5242880}'
  snapshot grows a-web-0 | apply
  ready grows
  is volumesnapshot grows .status.restoreSize 15Mi || die "restoreSize $(get volumesnapshot grows .status.restoreSize)"
  { claim small VolumeSnapshot grows; claim large VolumeSnapshot grows 15Mi; } | apply
  bound large
  until_true 20 "event" event small 'less than'
  ok "restoreSizeExtra: 10Mi refused by the provisioner, 15Mi Bound"

  control '{"typo": 1}'
  snapshot typo a-web-0 | apply
  until_true 20 "error" logged 'unknown field "typo"'
  control
  ready typo
  ok "an unknown key in control.json is an error"
}

faults_of_claims() {
  control '{"notRestorable": true}'
  claim unreadable VolumeSnapshot fails | apply
  until_true 20 "event" event unreadable 'cannot be read'
  control
  bound unreadable
  ok "notRestorable: the claim is Pending with our sentence, then Bound"

  control '{"noCloneWhilePublished": true}'
  claim clone PersistentVolumeClaim a-web-0 | apply
  until_true 20 "event" event clone 'in use and cannot be cloned'
  control
  bound clone 60
  [ -n "$(inside head -n 1 "$state/pool/volumes/$(pv clone)/log")" ] || die "the clone is empty"
  ok "noCloneWhilePublished: refused, later cloned with its data"

  local chosen='volume.kubernetes.io/selected-node'
  control "{\"exhaustedOnNode\": \"$node\"}"
  claim full - - 10Mi csi-wffc "$chosen: $node" | apply
  until_true 20 "event" event full 'has no room'
  until_true 20 "node dropped" is pvc full ".metadata.annotations.${chosen//./\\.}" ''
  control
  k annotate pvc full "$chosen=$node" > /dev/null
  bound full
  ok "exhaustedOnNode: the provisioner drops the node; chosen again, Bound"
}

faults_of_deletion() {
  local volume handle
  volume=$(pv unreadable)
  control '{"slowDelete": "20s"}'
  k delete pvc unreadable --wait=false > /dev/null
  until_true 60 "volume gone" gone pv "$volume"
  journal delete '(.end - .begin) / 1e9' ".volume == \"$volume\"" | jq -e '. >= 20' > /dev/null || die "slowDelete"
  ok "slowDelete: volume gone after 20 s in the driver, past the provisioner's own deadline"

  control
  claim needs VolumeSnapshot fails | apply
  bound needs
  control '{"refuseDeleteWithClones": true}'
  k delete volumesnapshot fails --wait=false > /dev/null
  until_true 20 "refusal" logged 'still needs it'
  ! gone volumesnapshot fails || die "deleted"
  k delete pvc needs > /dev/null
  until_true 60 "snapshot gone" gone volumesnapshot fails
  ok "refuseDeleteWithClones: Terminating until its clone is gone"

  control '{"inVolume": true}'
  claim whole - - | apply
  bound whole
  volume=$(pv whole)
  snapshot part whole | apply
  ready part
  handle=$(handle part)
  [[ $handle == snap://$volume/* ]] || die "handle $handle"
  claim kept VolumeSnapshot part | apply
  bound kept
  k delete pvc whole > /dev/null
  until_true 30 "volume gone" gone pv "$volume"
  inside test ! -e "$state/pool/snapshots/${handle##*/}" || die "the snapshot outlived its volume"
  claim lost VolumeSnapshot part | apply
  until_true 20 "event" event lost 'there is no snapshot'
  k delete pvc lost > /dev/null
  k delete volumesnapshot part --timeout=40s > /dev/null
  control
  ok "inVolume: a handle within its volume, restorable, gone with its volume, then deletable"
}

killed_driver() {
  control '{"cutDelay": "5s"}'
  local lines
  lines=$(grep -c 'before cutting' "$log") || true
  snapshot killed a-web-0 | apply
  until_true 20 "the cut under way" logged 'before cutting' $((lines + 1))
  "$cluster" driver kill $sim
  control
  "$cluster" driver start $sim
  ready killed
  [ "$(journal cut .snapshot ".snapshot == \"$(handle killed)\"" | wc -l)" = 1 ] || die "not one cut"
  lines=$(k exec web-0 -- sh -c 'wc -l < /a/log')
  until_true 10 "the pod writing on" k exec web-0 -- sh -c "[ \$(wc -l < /a/log) -gt $lines ]"
  ok "kill -9 in the middle of a cut: after the restart cut once and ready; pods went on writing"
}

stopped_driver() {
  "$cluster" driver stop $sim
  ! inside grep -q " $state/pool " /proc/self/mountinfo || die "still mounted after SIGTERM"
  k exec web-0 -- sh -c 'echo alive >> /a/log'
  "$cluster" driver start $sim
  k delete pod web-0 --wait=true > /dev/null
  until_true 60 "pod" running web
  snapshot after a-web-0 | apply
  ready after
  inside grep -q alive "$state/pool/snapshots/$(handle after)/log" || die "the write between is lost"
  [ "$(losetup --noheadings --associated "$state/pool.img" | wc -l)" = 1 ] || die "more than one loop device"
  ok "SIGTERM unmounts the pool and leaves the pods' volumes; restarted on the same loop device, nothing lost"
}

two_drivers() {
  local i
  app second two e | apply
  until_true 60 "pods" running second
  for i in 0 1 2; do snapshot "h-$i" "e-second-$i" two; snapshot "i-$i" "b-web-$i"; done | apply
  for i in 0 1 2; do
    ready "h-$i"; ready "i-$i"
    claim "h-$i" VolumeSnapshot "h-$i" 10Mi two | apply
  done
  for i in 0 1 2; do bound "h-$i"; done
  [ "$(jq -r 'select(.op == "cut").snapshot' "$dir/csi/$two/journal.jsonl" | wc -l)" = 3 ] || die "the second journal"
  ok "two drivers side by side, each with its own pool and journal"
}

answers() { k exec "$1" -- pg_isready --quiet 2> /dev/null; }
# sql POD QUERY
sql() { k exec "$1" --container c -- psql --no-psqlrc --tuples-only --no-align --dbname bench --command "$2"; }
postgres() { pod "$1" '[run-postgres]' "$1" | sed "s#localhost/app:1#localhost/postgres:15#; \
  s#^spec:#&\n  securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999, fsGroupChangePolicy: OnRootMismatch}#
  s#mountPath: /$1}#mountPath: /data}#"; }

database() {
  local sums accounts tellers branches history
  { claim pg - - 1Gi; postgres pg; } | apply
  pod_ready pg
  until_true 40 "the database" answers pg
  k exec pg -- sh -c 'createdb bench && psql -qc "create extension amcheck" bench && pgbench -qi bench' > /dev/null 2>&1
  # Exec ends when its client does, and the load with the pod: it runs on by itself.
  k exec pg -- sh -c 'nohup pgbench --client 4 --time 600 bench > /tmp/load 2>&1 &'
  until_true 20 "the load" pg_has_history
  snapshot pg pg | apply
  ready pg
  { claim pg-restored VolumeSnapshot pg 1Gi; postgres pg-restored; } | apply
  pod_ready pg-restored
  until_true 40 "the recovered database" answers pg-restored
  k logs pg-restored | grep -q 'redo starts' || die "the restored server did not recover: was there no load?"
  sums=$(sql pg-restored "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from
    pgbench_tellers), (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)")
  IFS='|' read -r accounts tellers branches history <<< "$sums"
  [ "$accounts $tellers $branches" = "$history $history $history" ] || die "the sums differ: $sums"
  k exec pg-restored -- pg_amcheck --heapallindexed --parent-check --rootdescend bench > "$scratch/amcheck" 2>&1 ||
    die "pg_amcheck: $(cat "$scratch/amcheck")"
  k delete pod pg pg-restored > /dev/null
  ok "PostgreSQL under load: the snapshot recovers, its sums agree ($accounts each), pg_amcheck finds nothing"
}
pg_has_history() { [ "$(sql pg 'select count(*) > 100 from pgbench_history' 2> /dev/null)" = t ]; }

no_volumes() { [ -z "$(k get pv --output name)" ]; }

all_deleted() {
  local left
  k delete statefulset --all > /dev/null
  k delete pvc,volumesnapshot --all --timeout=50s > /dev/null
  until_true 60 "volumes gone" no_volumes
  left=$(inside find "$state/pool/volumes" "$state/pool/snapshots" "$state/volumes" "$state/snapshots" \
    -mindepth 1 -maxdepth 1)
  [ -z "$left" ] || die "left: $left"
  ok "all claims and snapshots deleted: the pool and the metadata are empty"
}

# at NAME ARGUMENT...: the script for the cluster with that name.
at() { SSB_CLUSTER_NAME=$1 "$cluster" "${@:2}"; }
box() { cut -d ' ' -f 1 "/var/tmp/sts-backup/$1/pid1"; }
namespaces() { local pid; pid=$(box "$1"); readlink "/proc/$pid/ns/net" "/proc/$pid/ns/mnt" "/proc/$pid/ns/pid"; }
members() { grep -lE "/$1-[0-9a-f]{8}(/|$)" /proc/[0-9]*/cgroup 2> /dev/null || true; }

# In ticks since the machine's start.
ticks() { awk -v hertz="$(getconf CLK_TCK)" '{ printf "%d", $1 * hertz }' /proc/uptime; }
# Of those in that namespace the one that lsns names, if it was there before that tick: numbers are given out again.
older() { # NAMESPACE TICK
  local pid
  for pid in $(lsns --noheadings --output NS,PID | awk -v number="${1//[^0-9]/}" '$1 == number { print $2 }'); do
    sed 's/.*) //' "/proc/$pid/stat" 2> /dev/null | awk -v tick="$2" -v pid="$pid" '$20 <= tick { print pid }'
  done
}

# nothing_left NAME NAMESPACES TICK: when it went down
nothing_left() {
  local name=$1 state=/var/tmp/sts-backup/$1 namespace
  [ -z "$(members "$name")" ] || die "processes are left: $(members "$name")"
  [ -z "$(find /sys/fs/cgroup -type d -regex ".*/$name-[0-9a-f]*")" ] || die "cgroups are left"
  ! losetup --list | grep -F " $state/" || die "loop devices are left"
  ! grep -F "$state" /proc/self/mountinfo || die "mounts are left"
  for namespace in $2; do
    [ -z "$(older "$namespace" "$3")" ] || die "namespace $namespace is left"
  done
  [ ! -e "$state" ] || die "$state is left"
}

side_by_side() {
  local one two again pid tick
  at "$second" up > "$scratch/second"
  one=$(namespaces "$node") two=$(namespaces "$second")
  [ "$(at "$node" kubectl get nodes --output name) $(at "$second" kubectl get nodes --output name)" = \
    "node/$node node/$second" ] || die "the nodes are mixed up"
  # Not through a pipe: who reads no further than the word ends the writer.
  at "$second" up > "$scratch/again"
  grep -q 'is up already' "$scratch/again" || die "a second up does not see that it is up"
  ok "a second cluster beside the first: each has its own node; up again does nothing"

  pid=$(box "$second")
  kill -KILL "$pid"
  at "$second" up > "$scratch/second" # half dead, whatever is left of it at this moment
  grep -q 'cleaning up first' "$scratch/second" || die "up did not see what was left"
  again=$(namespaces "$second")
  at "$second" kubectl get --raw /readyz > /dev/null
  ok "killed and up again: what was left is cleaned away"

  tick=$(ticks)
  at "$node" down > /dev/null
  nothing_left "$node" "$one" "$tick"
  at "$second" kubectl get --raw /readyz > /dev/null || die "the other one does not live on"
  tick=$(ticks)
  at "$second" down > /dev/null
  nothing_left "$second" "$two $again" "$tick"
  at "$second" down > "$scratch/again"
  grep -q 'nothing is up' "$scratch/again" || die "down without a cluster"
  ok "both down: no process, cgroup, loop device, mount, namespace or file is left"
}

at "$second" down > /dev/null
"$cluster" down > /dev/null
"$cluster" up > /dev/null
[ "$(get csinode "$node" .spec.drivers[*].name | xargs -n 1 | sort | xargs)" = "$sim $two" ] || die "the drivers' names"
ok "cluster up, drivers registered with the kubelet"
conformance
stateful_sets
nine_cuts
nine_restores
atomic_cuts
faults_of_snapshots
faults_of_claims
faults_of_deletion
killed_driver
stopped_driver
two_drivers
database
all_deleted
side_by_side
