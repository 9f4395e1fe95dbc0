#!/bin/bash
# init.sh: process 1 of the box. Puts private mounts over the machine's, makes the network, runs containerd and reaps.
# When it is killed, the kernel ends all other processes of the box and frees its mounts and its network.
set -euo pipefail
dir=$SSB_CLUSTER_DIR
hostname "$SSB_CLUSTER_NAME"

# The machine's cgroups as seen from ours: only below them may the kubelet write.
mount -t sysfs sysfs /sys
if [ -s "$dir/hierarchies" ]; then
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while read -r controllers; do
    folder=/sys/fs/cgroup/${controllers#name=}
    mkdir "$folder"
    options=$controllers
    [[ $controllers != name=* ]] || options=none,$controllers
    mount -t cgroup -o "$options" cgroup "$folder"
  done < "$dir/hierarchies"
else # cgroup v2
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control || echo "pods do without the controller $controller" >&2
  done
fi
mount -t tmpfs -o mode=755 tmpfs /run
# What goes to /var/lib, by the CNI plugins for one, stays in the state folder.
mount -t overlay -o "lowerdir=/var/lib,upperdir=$dir/var-lib/upper,workdir=$dir/var-lib/work" overlay /var/lib
mkdir -p /var/lib/kubelet
mount --bind "$dir/kubelet" /var/lib/kubelet
# A kubelet removes the logs of pods that it does not know: those of another cluster too, were they in one folder.
mount --bind "$dir/pod-logs" /var/log
mount --bind "$dir/conf/resolv.conf" /etc/resolv.conf

# The kubelet and kube-proxy write these for the whole machine: they get scratch files.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=$dir/sys/${setting%=*}
  mkdir -p "${file%/*}"
  echo "${setting#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done
mount --make-rshared / # pods' mounts are to reach the kubelet, and the driver's the pods; nothing reaches the machine

# The node's address is on a pair of interfaces with both ends in here: not every kernel has dummy interfaces. The
# default route leads nowhere, but there has to be one.
ip link set lo up
ip link add node0 type veth peer name node0-far
ip addr add 10.77.0.2/24 dev node0
ip link set node0 up
ip link set node0-far up
ip route add unreachable default
echo 1 > /proc/sys/net/ipv4/ip_forward

# Bash reaps what is left to process 1. Without containerd there is no cluster: its end is the end of the box.
containerd --config "$dir/conf/containerd.toml" > "$dir/log/containerd.log" 2>&1 &
wait $! || true
echo "containerd has ended: $(tail -n 2 "$dir/log/containerd.log")" >&2
