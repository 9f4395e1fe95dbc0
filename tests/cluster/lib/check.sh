# Whether this machine can run a cluster, and build what is missing. All that it lacks is said at once, with the remedy,
# before anything is built.
# shellcheck shell=bash disable=SC2154

GiB=$((1 << 20)) # in KiB, as the kernel and df count

# lack SENTENCE: says what is missing.
lack() { lacking=yes; echo "cluster $name: $*" >&2; }

# check_machine ends with 1 when something is missing. What `up` does not need, because all is built, is not asked for.
check_machine() {
  local lacking=
  find_stale
  cgroups_fit
  memory_fits
  disks_fit
  [ ${#stale[@]} = 0 ] || go_fits
  [ -z "$lacking" ] || exit 1
  install_packages "${run_packages[@]}"
  kernel_fits
  [ -z "$lacking" ] || exit 1
}

cgroups_fit() {
  case $(cgroup_kind) in
    none) lack "no cgroups are mounted under /sys/fs/cgroup: mount -t cgroup2 cgroup2 /sys/fs/cgroup" \
      "(a container must be started with --privileged)" ;;
    v1) v1_fits ;;
    systemd)
      controllers_fit
      systemctl show --property Version > /dev/null 2>&1 && command -v systemd-run > /dev/null ||
        lack "systemd rules the cgroups here but does not answer: run this on the machine itself, not in a chroot" ;;
    v2)
      controllers_fit
      share_controllers || lack "/sys/fs/cgroup is not the root of the machine's cgroups, or it is read-only, so that" \
        "it hands no controllers on: start the container with --privileged --cgroupns=host" ;;
  esac
}

controllers_fit() {
  local controller
  for controller in cpu memory pids; do
    grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers ||
      lack "the kernel's cgroups lack the controller $controller: boot it with cgroup_enable=$controller and" \
        "without cgroup_disable=$controller; not with cgroup v1 and v2 side by side"
  done
}

v1_fits() {
  local controller cgroup missing=()
  for controller in cpu cpuacct cpuset memory; do
    grep -qw "$controller" <<< "$(v1_hierarchies)" ||
      lack "cgroup v1 has no controller $controller here: boot the kernel with cgroup_enable=$controller, or with" \
        "cgroup v2 (systemd.unified_cgroup_hierarchy=1)"
  done
  while read -r cgroup; do
    [ -w "${cgroup%/*}/cgroup.procs" ] || missing+=("${cgroup%/*}")
  done < <(own_cgroups)
  [ ${#missing[@]} = 0 ] ||
    lack "no cgroup can be made in ${missing[*]}: mount the hierarchies of cgroup v1 under /sys/fs/cgroup (a container" \
      "must be started with --privileged)"
}

memory_fits() {
  local need=$((3 * GiB / 2)) why="a cluster" free
  [ ${#stale[@]} = 0 ] || { need=$((3 * GiB)) why="building Kubernetes"; }
  free=$(awk '/^(MemAvailable|SwapFree):/ { sum += $2 } END { print sum }' /proc/meminfo)
  ((free >= need)) || lack "$why needs $((need * 10 / GiB / 10)).$((need * 10 / GiB % 10)) GiB of free memory, and there are" \
    "$((free * 10 / GiB / 10)).$((free * 10 / GiB % 10)): end something, or add swap"
}

# disks_fit sums what is needed up by file system.
disks_fit() {
  local -A need=() free=()
  local folder size mount available
  while read -r size folder; do
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    read -r mount available < <(df --output=target,avail "$folder" | tail -n 1)
    need[$mount]=$((${need[$mount]:-0} + size * GiB)) free[$mount]=$available
  done < <(
    echo "2 $dir"
    if [ ${#stale[@]} -gt 3 ]; then
      echo "2 $cache"
      echo "6 ${GOCACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/go-build}"
      echo "2 ${GOMODCACHE:-${GOPATH:-$HOME/go}/pkg/mod}"
    fi
  )
  for mount in "${!need[@]}"; do
    ((free[$mount] >= need[$mount])) ||
      lack "$((need[$mount] / GiB)) GiB are needed on the disk of $mount, and $((free[$mount] / GiB)) are free: make" \
        "room, or set SSB_CLUSTER_DIR, SSB_CLUSTER_CACHE, GOCACHE and GOMODCACHE to folders elsewhere"
  done
}

# go_fits asks in the module's folder, where Go 1.21 and later fetches the Go that the module wants.
go_fits() {
  local need have
  need=$(sed -n 's/^go //p' "$here/csi/go.mod")
  command -v go > /dev/null || { lack "building needs Go $need or later: install it from https://go.dev/dl"; return; }
  have=$(cd "$here/csi" && go version 2>&1) || true
  [[ $have == "go version go"* ]] && printf 'go%s\n' "$need" "$(cut -d ' ' -f 3 <<< "$have" | cut -c 3-)" | sort -CV ||
    lack "building needs Go $need or later, and there is: $have; install one from https://go.dev/dl," \
      "or with Go 1.21 or later let it fetch its successor: GOTOOLCHAIN=auto"
}

# kernel_fits does in small what a cluster does, in namespaces of its own. The state folder's file system is part of it.
kernel_fits() {
  local probe=$dir.probe line
  rm -rf "$probe" && mkdir -p "$probe" || fail "the folder $probe cannot be made"
  while read -r line; do lack "$line"; done < <(
    unshare --net --mount --propagation private --uts --ipc --cgroup --pid --fork --mount-proc \
      "$BASH" "$here/box/probe.sh" "$probe" 2> "$probe/error" ||
      echo "namespaces cannot be made ($(tail -n 1 "$probe/error")): a container must be started with --privileged"
  )
  rm -rf "$probe"
}
