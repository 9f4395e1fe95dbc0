#!/bin/bash
# driver.sh start|stop|kill NAME: runs in the box. The driver serves CSI and registers itself with the kubelet; the
# sidecars are the real ones. They end at their first call after their driver has gone, so they are started again and
# again. `start` starts what does not run; `stop` is SIGTERM and `kill` is SIGKILL to the driver alone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=run.sh
source "$(dirname "$0")/run.sh"
verb=$1 name=$2
folder=/var/lib/kubelet/plugins/$name registry=/var/lib/kubelet/plugins_registry state=$dir/csi/$name

case $verb in
  start)
    mkdir -p "$folder" "$registry" "$state"
    run "$name-driver" "$bin/csi" --name "$name" --endpoint "unix://$folder/csi.sock" \
      --registration "$registry/$name-reg.sock" --node "$SSB_CLUSTER_NAME" --state "$state"
    options=(--csi-address="$folder/csi.sock" --kubeconfig="$dir/conf/csi.kubeconfig"
      --kube-api-qps=50 --kube-api-burst=100)
    # The sweep takes finalizers off snapshots that a failed restore has left there: 5 minutes are too long for a test.
    keep "$name-provisioner" "$bin/csi-provisioner" "${options[@]}" --feature-gates=Topology=true \
      --snapshot-orphan-sweep-interval=10s
    # What is deleted in the middle of its cut stays Terminating until the resync, which is 15 minutes by default.
    keep "$name-snapshotter" "$bin/csi-snapshotter" "${options[@]}" --resync-period=30s
    ;;
  stop | kill)
    running "$name-driver" || { echo "the driver $name does not run" >&2; exit 1; }
    signal=TERM; [ "$verb" = stop ] || signal=KILL
    pid=$(cat "$dir/pids/$name-driver")
    kill "-$signal" "$pid"
    while kill -0 "$pid" 2> /dev/null; do sleep 0.05; done
    ;;
esac
