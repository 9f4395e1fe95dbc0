# Taking a cluster down, whatever state it is in, and looking whether it is really gone.
# shellcheck shell=bash disable=SC2154

down() {
  if [ ! -e "$dir" ] && [ ! -e "$dir.probe" ] && [ -z "$(left_cgroups)" ]; then
    say "nothing is up"
    return
  fi
  local begin=$SECONDS
  clean
  say "down after $((SECONDS - begin)) s; nothing is left"
}

left_loops() {
  losetup --list --noheadings --output NAME,BACK-FILE | awk -v dir="$dir/" 'index($2, dir) == 1 { print $1 }'
}
no_loops() { [ -z "$(left_loops)" ]; }
left_mounts() { awk -v dir="$dir" '$5 == dir || index($5, dir "/") == 1 { print $5 }' /proc/self/mountinfo; }

# clean removes everything. Killing process 1 ends all others with their mounts and network; the rest is waiting for it.
# When `up` was killed before it wrote down which process that is, all are killed.
clean() {
  local pid
  if pid=$(pid1); then kill -KILL "$pid" 2> /dev/null || true; fi
  if [ -z "$pid" ] || ! until_true 5 no_processes; then
    for pid in $(left_processes); do kill -KILL "$pid" 2> /dev/null || true; done
    until_true 10 no_processes || fail "these processes do not end: $(left_processes | paste -sd ' ')"
  fi
  until_true 5 remove_cgroups || fail "these cgroups cannot be removed: $(left_cgroups | paste -sd ' ')"
  # The kernel takes a pool's mount and its loop device away in the background.
  if ! until_true 10 no_loops; then
    for pid in $(left_loops); do losetup --detach "$pid" || true; done
    until_true 5 no_loops || fail "these loop devices are left: $(left_loops | paste -sd ' ')"
  fi
  [ -z "$(left_mounts)" ] || fail "these mounts are left: $(left_mounts | paste -sd ' ')"
  rm -rf --one-file-system "$dir.probe" "$dir" || fail "the state in $dir cannot be removed"
  rmdir --ignore-fail-on-non-empty "$(dirname "$dir")" 2> /dev/null || true
}
