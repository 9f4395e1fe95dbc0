# Debian packages: what a cluster runs on, and what is needed only to build it.
# shellcheck shell=bash disable=SC2034

run_packages=(containerd runc containernetworking-plugins iptables nftables conntrack socat iproute2 btrfs-progs
  openssl jq libfaketime procps util-linux)
build_packages=(gcc libc6-dev busybox-static buildah mmdebstrap python3)

missing_packages() {
  local package
  for package; do
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$package" 2> /dev/null | grep -q '^ii' || echo "$package"
  done
}

install_packages() {
  command -v apt-get > /dev/null ||
    fail "there is no apt-get: this is made for Debian; elsewhere see lib/deps.sh for what it runs on"
  local missing log=$cache/log/apt.log
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  root_on_linux
  say "installing ${missing[*]}"
  mkdir -p "$cache/log"
  {
    apt-get update --quiet=2 &&
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 -o DPkg::Lock::Timeout=300 --yes --no-install-recommends \
      "${missing[@]}"
  } > "$log" 2>&1 < /dev/null || fail "apt-get could not install ${missing[*]}: $(tail -n 3 "$log"); all of it: $log"
  # The box runs a containerd of its own: one that the package just started for the machine is not touched.
}
