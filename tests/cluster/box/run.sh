# run.sh: how the scripts in the box start what keeps running. Sourced.
# shellcheck shell=bash disable=SC2034
dir=$SSB_CLUSTER_DIR bin=$SSB_CLUSTER_CACHE/bin
mkdir -p "$dir/pids"

running() { kill -0 "$(cat "$dir/pids/$1" 2> /dev/null)" 2> /dev/null; }

# run NAME COMMAND...: starts it unless it runs, in a session of its own, with its output in the log folder.
run() {
  local name=$1; shift
  ! running "$name" || return 0
  setsid "$@" >> "$dir/log/$name.log" 2>&1 < /dev/null &
  echo $! > "$dir/pids/$name"
}

# keep NAME COMMAND...: the same, and starts it again whenever it ends.
keep() {
  local name=$1; shift
  run "$name" bash -c 'while :; do "$@"; sleep 0.5; done' keep "$@"
}
