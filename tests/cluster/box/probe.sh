#!/bin/bash
# probe.sh FOLDER: does in small what a cluster does, in namespaces that are there for it alone. Prints a sentence for each
# thing that this kernel cannot do. FOLDER is empty and on the file system of the cluster's state.
set -uo pipefail
cd "$1" || exit

# try WHAT REMEDY COMMAND...: what the command says when it fails comes before the remedy.
try() {
  local what=$1 remedy=$2; shift 2
  "$@" > said 2>&1 || echo "this kernel has no $what ($(tail -n 1 said)): $remedy"
}
modules() { echo "modprobe $*; Debian's own kernel has them: apt-get install linux-image-amd64"; }
nat() {
  iptables -w -t nat -A POSTROUTING -m comment --comment probe -m addrtype --dst-type LOCAL -j MASQUERADE &&
    iptables -w -t nat -A OUTPUT -m statistic --mode random --probability 0.5 -j MARK --or-mark 0x4000 &&
    iptables -w -A FORWARD -m conntrack --ctstate INVALID -j DROP
}
layers() { mkdir lower upper work merged && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged; }
volumes() { truncate -s 256M image && mkfs.btrfs -q -m single image && mkdir volumes && mount -t btrfs -o loop image volumes; }

older="where the kernel has only the older tables: update-alternatives --set iptables /usr/sbin/iptables-legacy"
try "pairs of interfaces" "$(modules veth)" ip link add probe0 type veth peer name probe1
try "bridges" "$(modules bridge)" ip link add probe2 type bridge
try "NAT for iptables" "$older; otherwise $(modules nf_nat xt_MASQUERADE xt_conntrack xt_statistic)" nat
try "overlay on the file system of $1" "set SSB_CLUSTER_DIR to a folder on ext4, xfs or btrfs; $(modules overlay)" layers
try "btrfs on a loop device" "$(modules btrfs loop); a container must see the devices: --privileged -v /dev:/dev" volumes
exit 0
