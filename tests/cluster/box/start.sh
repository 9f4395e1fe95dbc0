#!/bin/bash
# start.sh UP: goes into the cluster's cgroups, which become the roots of the box's, and then becomes the parent of the
# box's process 1. Ends when UP, the process that started it, is gone: the next `up` or `down` may have cleaned already.
# Whoever cleans after that was looked at finds us in the cgroups.
set -euo pipefail
dir=$SSB_CLUSTER_DIR
mapfile -t cgroups < "$dir/cgroups"
for cgroup in "${cgroups[@]}"; do echo "$$" > "$cgroup/cgroup.procs"; done
[ "$(awk '/^PPid:/ { print $2 }' "/proc/$$/status")" = "$1" ] || { echo "who started the box is gone" >&2; exit 1; }
# With v2 a cgroup that has processes hands no controllers on. Ours go one further down, and the pods' beside that.
inner='[ -s "$1/hierarchies" ] || { mkdir "$2/box" && echo $$ > "$2/box/cgroup.procs"; } || exit
  exec unshare --net --mount --propagation private --uts --ipc --pid --fork --kill-child --mount-proc "$BASH" "$3"'
exec unshare --cgroup "$BASH" -c "$inner" start "$dir" "${cgroups[0]}" "$(dirname "$0")/init.sh"
