#!/bin/bash
# snapshot-controller.sh: runs in the box: the controller that binds VolumeSnapshots to their contents, for all drivers.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=run.sh
source "$(dirname "$0")/run.sh"
keep snapshot-controller "$bin/snapshot-controller" --kubeconfig="$dir/conf/csi.kubeconfig" \
  --kube-api-qps=50 --kube-api-burst=100
