# What is said while things are built: which part of how many, the minutes so far, and those that are left.
# shellcheck shell=bash disable=SC2154

# part_seconds PART: how long it takes with empty caches on two cores. Only the ratios matter once some of it is built.
part_seconds() {
  case $1 in
    kube-apiserver) echo 330 ;;
    csi-provisioner) echo 190 ;;
    kube-controller-manager) echo 130 ;;
    postgres.tar) echo 80 ;;
    etcd | helm | kubelet) echo 40 ;;
    kube-scheduler | kubectl | csi-sanity) echo 15 ;;
    *) echo 6 ;;
  esac
}

seconds_of() {
  local part sum=0
  for part; do sum=$((sum + $(part_seconds "$part"))); done
  echo "$sum"
}

minutes() {
  if (($1 < 90)); then echo "$1 s"; else echo "$((($1 + 30) / 60)) min"; fi
}

# announce tells before the first part how long it will take.
announce() {
  local sum long
  sum=$(($(seconds_of "${stale[@]}") * 4 / 3))
  long="about $(minutes "$sum")"
  ((sum < 800)) || long="15 to 20 minutes"
  say "building ${#stale[@]} parts: $long on two cores, once; they are kept in $cache"
  build_begin=$SECONDS part_number=0
}

begin_part() {
  part_number=$((part_number + 1)) part_begin=$SECONDS
  progress "$1"
  each_minute "$1" &
  part_ticker=$!
}
# each_minute ends within a second when the build was killed: it must not hold on to the build's lock or its output.
each_minute() {
  local seconds=0
  while sleep 1 && kill -0 $$ 2> /dev/null; do
    ((++seconds % 60)) || progress "$1"
  done
}
end_part() {
  kill "$part_ticker" 2> /dev/null || true
  wait "$part_ticker" 2> /dev/null || true
}

progress() {
  local so_far left
  so_far=$(minutes $((SECONDS - build_begin))) left=$(minutes "$(seconds_left)")
  say "part $part_number of ${#stale[@]}: $1 ($so_far so far, about $left left)"
}

# seconds_left takes the pace of what is built already, once that is a minute's worth; until then a third is added.
seconds_left() {
  local built here_now rest current so_far=$((part_begin - build_begin))
  built=$(seconds_of "${stale[@]:0:part_number-1}")
  current=$(part_seconds "${stale[part_number-1]}")
  rest=$(seconds_of "${stale[@]:part_number}")
  here_now=$((SECONDS - part_begin))
  if ((built < 60)); then built=3 so_far=4; fi
  current=$((current * so_far / built)) rest=$((rest * so_far / built))
  ((here_now < current)) || current=$here_now
  echo $((current - here_now + rest))
}
