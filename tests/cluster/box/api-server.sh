#!/bin/bash
# api-server.sh start|kill: runs in the box. `start` starts it unless it runs; `kill` is SIGKILL, and whoever is connected
# finds out by himself.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=run.sh
source "$(dirname "$0")/run.sh"
address=10.77.0.2 pki=$dir/pki conf=$dir/conf

case $1 in
  start)
    run kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
      --bind-address=$address --advertise-address=$address --secure-port=6443 \
      --tls-cert-file="$pki/api.crt" --tls-private-key-file="$pki/api.key" --client-ca-file="$pki/ca.crt" \
      --token-auth-file="$conf/tokens.csv" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
      --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
      --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=10.96.0.0/16 \
      --allow-privileged=true --kubelet-preferred-address-types=InternalIP \
      --audit-policy-file="$conf/audit-policy.yaml" --audit-log-path="$dir/log/audit.log" --audit-log-maxsize=500
    ;;
  kill)
    running kube-apiserver || { echo "kube-apiserver does not run" >&2; exit 1; }
    pid=$(cat "$dir/pids/kube-apiserver")
    kill -KILL "$pid"
    while kill -0 "$pid" 2> /dev/null; do sleep 0.05; done
    ;;
esac
