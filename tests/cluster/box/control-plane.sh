#!/bin/bash
# control-plane.sh: runs in the box: etcd, the API server, and when that is ready all that works through it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=run.sh
source "$(dirname "$0")/run.sh"
address=10.77.0.2 pki=$dir/pki conf=$dir/conf

run etcd "$bin/etcd" --name default --data-dir "$dir/etcd" --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster default=http://127.0.0.1:2380 \
  --unsafe-no-fsync # the state does not outlive the cluster

bash "$(dirname "$0")/api-server.sh" start

until "$bin/kubectl" --kubeconfig "$dir/kubeconfig" get --raw /readyz > /dev/null 2>&1; do
  running etcd || { echo "etcd has ended: $(tail -n 2 "$dir/log/etcd.log")" >&2; exit 1; }
  running kube-apiserver || { echo "kube-apiserver has ended: $(tail -n 2 "$dir/log/kube-apiserver.log")" >&2; exit 1; }
  sleep 0.1
done

as() { printf -- "--%s=$conf/$1.kubeconfig " kubeconfig authentication-kubeconfig authorization-kubeconfig; }
# These two end when the API server has been away for a while.
# shellcheck disable=SC2046
keep kube-controller-manager "$bin/kube-controller-manager" $(as controller-manager) --leader-elect=false \
  --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" \
  --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
  --flex-volume-plugin-dir=/var/lib/kubelet/volumeplugins \
  --use-service-account-credentials=true --cluster-cidr=10.244.0.0/16 --node-monitor-grace-period=60s
# shellcheck disable=SC2046
keep kube-scheduler "$bin/kube-scheduler" $(as scheduler) --leader-elect=false
run kubelet "$bin/kubelet" --config="$conf/kubelet.yaml" --kubeconfig="$conf/node.kubeconfig" \
  --node-ip=$address --hostname-override="$SSB_CLUSTER_NAME" --v=1
run kube-proxy "$bin/kube-proxy" --config="$conf/kube-proxy.yaml"
