# Bringing a cluster up, and looking whether it is.
# shellcheck shell=bash disable=SC2154

up() {
  local begin=$SECONDS
  if pid1 > /dev/null; then
    for driver in "${drivers[@]}"; do driver start "$driver" || true; done # a test may have killed one
    reason="it was interrupted when it came up"
    if [ -e "$dir/complete" ] && healthy; then
      say "is up already"
      how_to_use
      return
    fi
    say "is up, but $reason: taking it down first"
    clean
  elif [ -e "$dir" ] || [ -n "$(left_cgroups)" ]; then
    say "left something behind when it ended: cleaning up first"
    clean
  fi
  install_packages "${run_packages[@]}"
  # A crash in the middle leaves something that the next `up` or `down` cleans.
  write_state
  start_box
  import_images &
  local imports=$!
  inside bash "$here/box/control-plane.sh" || fail "the control plane does not come up; its logs are in $dir/log"
  install_snapshots
  for driver in "${drivers[@]}"; do driver start "$driver"; done
  wait $imports || fail "importing the images failed"
  until_true 180 healthy || fail "not whole after $((SECONDS - begin)) s: $reason; its logs are in $dir/log"
  touch "$dir/complete"
  say "up after $((SECONDS - begin)) s"
  how_to_use
}

how_to_use() {
  echo "kubeconfig $dir/kubeconfig, inside only: $here/cluster enter COMMAND... or $here/cluster kubectl ARGUMENT..."
}

write_state() {
  mkdir -p "$dir"/{kubelet,var-lib/{upper,work},pod-logs,containerd,cni,sys,log,conf,pki,pids}
  chmod 700 "$dir"
  make_cgroups
  : > "$dir/conf/resolv.conf" # there is no DNS, and nobody is to wait for one
  local file
  for file in containerd.toml kubelet.yaml kube-proxy.yaml; do
    sed "s#@DIR@#$dir#g; s#@NAME@#$name#g" "$here/box/$file.in" > "$dir/conf/$file"
  done
  cp "$here/box/audit-policy.yaml" "$dir/conf/"
  cp "$here/box/net.conflist" "$dir/cni/"
  write_keys
  write_users
}

write_keys() {
  local pki=$dir/pki new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc)
  local names=IP:10.77.0.2,IP:127.0.0.1,IP:10.96.0.1,DNS:localhost
  names+=,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
  {
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/sa.key" &&
    openssl ec -in "$pki/sa.key" -pubout -out "$pki/sa.pub" &&
    openssl req -x509 "${new_key[@]}" -keyout "$pki/ca.key" -out "$pki/ca.crt" -days 3650 -subj "/CN=$name-ca" &&
    openssl req "${new_key[@]}" -keyout "$pki/api.key" -out "$pki/api.csr" -subj /CN=kube-apiserver &&
    openssl x509 -req -in "$pki/api.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -out "$pki/api.crt" \
      -days 3650 -extfile <(echo "subjectAltName=$names")
  } > "$dir/log/keys.log" 2>&1 || fail "making the keys failed: $(tail -n 1 "$dir/log/keys.log")"
}

# Each component has a token of its own, so that the audit log tells who did what.
write_users() {
  cat > "$dir/conf/tokens.csv" <<TEXT
admin-token,admin,admin,"system:masters"
controller-manager-token,system:kube-controller-manager,controller-manager
scheduler-token,system:kube-scheduler,scheduler
node-token,system:node:$name,node,"system:nodes"
proxy-token,system:kube-proxy,proxy
csi-token,csi,csi,"system:masters"
TEXT
  local user
  for user in controller-manager scheduler node proxy csi; do
    kubeconfig "$user" > "$dir/conf/$user.kubeconfig"
  done
  kubeconfig admin > "$dir/kubeconfig"
}

kubeconfig() { cat <<TEXT
apiVersion: v1
kind: Config
clusters:
- name: $name
  cluster: {server: "https://10.77.0.2:6443", certificate-authority-data: $(base64 -w 0 "$dir/pki/ca.crt")}
users:
- name: $1
  user: {token: $1-token}
contexts:
- name: $name
  context: {cluster: $name, user: $1}
current-context: $name
TEXT
}

# start_box returns when containerd answers. Nothing in the box holds our input, output or terminal.
start_box() {
  (
    cd /
    in_scope setsid "$BASH" "$here/box/start.sh" $$
  ) > "$dir/log/box.log" 2>&1 < /dev/null &
  local outer=$!
  until_true 30 record_pid1 "$outer" || fail "the box does not start: $(tail -n 3 "$dir/log/box.log")"
  until_true 60 containerd_answers || fail "containerd does not start: $(tail -n 3 "$dir/log/"{box,containerd}.log)"
}
# What start.sh passes through has children too: only the box's process 1 is 1 in a pid namespace.
record_pid1() {
  local pid
  pid=$(pgrep --parent "$1") && grep -qs '^NSpid:.*[[:space:]]1$' "/proc/$pid/status" || return 1
  echo "$pid $(started "$pid")" > "$dir/pid1"
}
containerd_answers() { inside ctr version > /dev/null 2>&1; }

import_images() {
  import "$images/pause.tar" "$images/app.tar"
  [ ! -e "$images/sts-backup.tar" ] || import "$images/sts-backup.tar"
  import "$images/postgres.tar"
}

# install_snapshots makes the API of VolumeSnapshots, the controller behind it, and what is in box/storage.yaml.
install_snapshots() {
  {
    kubectl create --filename "$cache/crds" &&
    kubectl wait --for=condition=Established --timeout=60s --filename "$cache/crds" &&
    kubectl create --filename "$here/box/storage.yaml" &&
    inside bash "$here/box/snapshot-controller.sh"
  } > "$dir/log/snapshots.log" 2>&1 || fail "installing snapshots failed: $(tail -n 3 "$dir/log/snapshots.log")"
}

# healthy tells whether all that `up` makes is there; otherwise `reason` says what is not.
healthy() {
  local components ready registered
  reason="the box does not answer"
  components=$(inside bash "$here/box/components.sh") || return 1
  reason=$(grep --max-count=1 ' has ended' <<< "$components") && return 1
  reason="the API server is not ready"
  kubectl get --raw /readyz > /dev/null 2>&1 || return 1
  reason="the node is not Ready"
  ready=$(kubectl get node "$name" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2> /dev/null)
  [ "$ready" = True ] || return 1
  reason="not all drivers are registered with the kubelet"
  registered=$(kubectl get csinode "$name" --output 'jsonpath={.spec.drivers[*].name}' 2> /dev/null) || return 1
  [ "$(wc -w <<< "$registered")" = ${#drivers[@]} ] || return 1
  reason="the default namespace has no service account yet"
  kubectl --namespace default get serviceaccount default > /dev/null 2>&1 || return 1
}
status() {
  if ! pid1 > /dev/null; then
    [ ! -e "$dir" ] || say "has ended and left $dir behind; cluster up or down cleans that up"
    [ -e "$dir" ] || say "nothing is up"
    exit 1
  fi
  inside bash "$here/box/components.sh" | sort
  kubectl get nodes,pods --all-namespaces
  healthy || fail "$reason"
  say "is whole"
  how_to_use
}
