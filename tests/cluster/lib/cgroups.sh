# The cluster's cgroups: they bound its processes, and tell `down` which these are.
# shellcheck shell=bash disable=SC2154

# cgroup_kind prints what this machine has:
#   v1       hierarchies of controllers: our cgroup is below the one that we are in, in each of them
#   systemd  cgroup v2 with systemd, which hands a scope over to us
#   v2       cgroup v2 without systemd: our cgroup is below the root
#   none     neither
cgroup_kind() {
  if [ "$(stat --file-system --format %T /sys/fs/cgroup 2> /dev/null)" = cgroup2fs ]; then
    if [ -d /run/systemd/system ]; then echo systemd; else echo v2; fi
  elif [ -n "$(v1_hierarchies)" ]; then echo v1
  else echo none; fi
}
v1_hierarchies() { cut -d : -f 2 /proc/self/cgroup | grep . || true; }

# own_cgroups prints the folder of the cluster's cgroup, with v1 that in each hierarchy. The state folder is part of the
# name, and so is the pid namespace, since containers may share the cgroups of their host: nobody is to take another
# cluster's processes for the remains of his own.
own_cgroups() {
  local controllers path key
  key=$name-$({ echo "$dir"; readlink /proc/self/ns/pid; } | sha256sum | cut -c 1-8)
  case $(cgroup_kind) in
    systemd) echo "/sys/fs/cgroup/system.slice/sts-backup-$key.scope" ;;
    v2) echo "/sys/fs/cgroup/sts-backup-$key" ;;
    *) while IFS=: read -r _ controllers path; do
        [ -z "$controllers" ] || echo "/sys/fs/cgroup/${controllers#name=}${path%/}/$key"
      done < /proc/self/cgroup ;;
  esac
}

# make_cgroups makes them and writes down where they are, and the hierarchies of v1 (none with v2) for the box.
make_cgroups() {
  own_cgroups > "$dir/cgroups"
  : > "$dir/hierarchies"
  case $(cgroup_kind) in
    v1) v1_hierarchies > "$dir/hierarchies"; make_v1_cgroups ;;
    v2) share_controllers && mkdir -p "$(cat "$dir/cgroups")" || fail "$(cat "$dir/cgroups") cannot be made" ;;
    systemd) ;; # made for the box when it starts: a scope without a process would vanish
  esac
}

make_v1_cgroups() {
  local cgroup
  while read -r cgroup; do
    mkdir -p "$cgroup" || fail "$cgroup cannot be made: are the cgroup v1 hierarchies mounted under /sys/fs/cgroup?"
    if [ -e "$cgroup/cpuset.cpus" ]; then # starts empty, and takes no process then
      cat "${cgroup%/*}/cpuset.cpus" > "$cgroup/cpuset.cpus"
      cat "${cgroup%/*}/cpuset.mems" > "$cgroup/cpuset.mems"
    fi
  done < "$dir/cgroups"
}

# share_controllers has the root hand its controllers on. A root that is not the machine's own, as in a container, can do
# that only while no process is in it.
share_controllers() { (echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control) 2> /dev/null; }

# in_scope COMMAND...: becomes the command, where systemd rules in a scope of the cluster's name, which ends with its
# last process.
in_scope() {
  [ "$(cgroup_kind)" = systemd ] || exec "$@"
  exec systemd-run --quiet --no-ask-password --scope --collect --slice system.slice --property Delegate=yes \
    --property TasksMax=infinity --unit "$(basename "$(own_cgroups)")" "$@"
}

# left_cgroups prints the cluster's cgroups that exist: those on record, or without one those that `up` would make.
left_cgroups() {
  local cgroup
  { cat "$dir/cgroups" 2> /dev/null || own_cgroups; } | while read -r cgroup; do
    [ ! -d "$cgroup" ] || echo "$cgroup"
  done
}

# left_processes prints the ids of all processes of the box: each of them is in its cgroups. Those that came in with
# `enter` are among them, with the half of `enter` that waits outside.
left_processes() {
  local cgroup
  left_cgroups | while read -r cgroup; do
    # A process of another pid namespace reads as 0, and is none of ours.
    find "$cgroup" -name cgroup.procs -exec cat {} + 2> /dev/null | grep -vx 0 || true
  done | sort -un
}
no_processes() { [ -z "$(left_processes)" ]; }

# remove_cgroups succeeds when none is left. A scope is systemd's to remove, which it does when its last process ends.
remove_cgroups() {
  local cgroup
  left_cgroups | while read -r cgroup; do
    [[ $cgroup != *.scope ]] || systemctl stop --quiet "$(basename "$cgroup")" 2> /dev/null || true
    find "$cgroup" -depth -type d -exec rmdir {} + 2> /dev/null || true
  done
  [ -z "$(left_cgroups)" ]
}
