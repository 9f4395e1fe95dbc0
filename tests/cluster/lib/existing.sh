# The demo on a cluster that is there already: what it needs, how the image gets there, and how all of it goes again.
# Sourced by `demo`.
# shellcheck shell=bash disable=SC2154

minikube_addons="minikube: minikube addons enable volumesnapshots csi-hostpath-driver"
made_here=sts-backup.io/demo # the label of the two namespaces: without it they are somebody else's
kinds=statefulsetbackups.backup.sts-backup.io

lack() { lacking=yes; printf 'demo: %s\n' "$*" >&2; }

# check_existing says all that the cluster and this machine lack, before anything is built or changed.
check_existing() {
  local lacking='' tool answer
  for tool in kubectl helm; do command -v "$tool" > /dev/null || fail "there is no $tool on the PATH: install it"; done
  helm upgrade --help | grep -- --take-ownership > /dev/null || lack "this helm has no --take-ownership: it takes 3.17 or later"
  answer=$(kubectl get --raw /readyz --request-timeout=20s 2>&1) ||
    fail "no cluster answers through SSB_TEST_KUBECONFIG=$SSB_TEST_KUBECONFIG: $(tail -n 1 <<< "$answer")"
  kubectl auth can-i '*' '*' --all-namespaces > /dev/null 2>&1 ||
    lack "the demo installs CRDs, roles and admission policies: it needs a kubeconfig of a cluster administrator"
  answer=$(kubectl api-resources --api-group=admissionregistration.k8s.io --output=name 2>&1) || true
  grep -q validatingadmissionpolicies <<< "$answer" ||
    lack "the cluster has no ValidatingAdmissionPolicy: it needs Kubernetes 1.30 or later"
  snapshots_fit
  nobody_is_disturbed
  [ -n "${SSB_DEMO_PROGRAM:-}" ] || loader > /dev/null || lacking=yes
  [ -z "$lacking" ] || exit 1
}

# snapshots_fit: the CRDs, a class of volumes, and a class of snapshots of the same driver.
snapshots_fit() {
  local kind driver classes default
  for kind in volumesnapshots volumesnapshotcontents volumesnapshotclasses; do
    kubectl get crd "$kind.snapshot.storage.k8s.io" > /dev/null 2>&1 || {
      lack "the snapshot CRDs are missing ($kind.snapshot.storage.k8s.io): install them and the snapshot controller from" \
        "https://github.com/kubernetes-csi/external-snapshotter ($minikube_addons)"
      return
    }
  done
  default='.metadata.annotations.snapshot\.storage\.kubernetes\.io/is-default-class'
  classes=$(kubectl get volumesnapshotclasses --output "jsonpath={range .items[*]}{.driver} {$default}{'\n'}{end}")
  driver=$(class_driver) || {
    if [ -n "$class" ]; then lack "there is no StorageClass $class (SSB_DEMO_STORAGE_CLASS); $(fitting_classes "$classes")"
    else lack "the cluster has no default StorageClass: name one in SSB_DEMO_STORAGE_CLASS; $(fitting_classes "$classes")"; fi
    return
  }
  case $(grep -c "^$driver " <<< "$classes") in
    0) lack "the ${class:-default} StorageClass has the driver $driver, for which there is no VolumeSnapshotClass: create one" \
        "if it can take snapshots, or name another StorageClass in SSB_DEMO_STORAGE_CLASS; $(fitting_classes "$classes")" ;;
    1) ;;
    *) [ "$(grep -c "^$driver true" <<< "$classes")" = 1 ] ||
        lack "several VolumeSnapshotClasses have the driver $driver: make one of them the default with the annotation" \
          "snapshot.storage.kubernetes.io/is-default-class: \"true\"" ;;
  esac
}
# fitting_classes CLASSES: the StorageClasses that would do, told from the drivers of the VolumeSnapshotClasses.
fitting_classes() {
  local fitting
  fitting=$(storage_classes |
    awk 'NR == FNR { driver[$1]; next } $2 in driver { print $1 }' <(cut -d ' ' -f 1 <<< "$1") - | paste -sd ' ')
  if [ -n "$fitting" ]; then echo "with a VolumeSnapshotClass there are: $fitting"
  else echo "there is none with a VolumeSnapshotClass ($minikube_addons)"; fi
}
storage_classes() {
  local default='.metadata.annotations.storageclass\.kubernetes\.io/is-default-class'
  kubectl get storageclasses --output \
    "jsonpath={range .items[*]}{.metadata.name} {.provisioner} {$default}{'\n'}{end}"
}
# class_driver prints the driver of the StorageClass that the demo takes.
class_driver() {
  storage_classes | awk -v class="$class" '
    class != "" && $1 == class || class == "" && $3 == "true" { print $2; found = 1; exit } END { exit !found }'
}

# nobody_is_disturbed: an installation that is there is not the demo's to take over, to use or to remove.
nobody_is_disturbed() {
  local space
  for space in "$namespace" "$system"; do
    if kubectl get namespace "$space" > /dev/null 2>&1 && ! is_made_here "$space"; then
      lack "the namespace $space is there already, and not made by the demo, which removes it in the end: take another" \
        "cluster, or delete it"
    fi
  done
  if kubectl get crd "$kinds" > /dev/null 2>&1 && ! is_made_here "$system"; then
    lack "sts-backup is installed on this cluster, or has left its CRDs: the demo brings an installation of its own and removes" \
      "it in the end. Take another cluster, or when nothing needs them: kubectl delete -f manifests/crds.yaml"
  fi
}
is_made_here() { grep -qx "namespace/$1" <<< "$(kubectl get namespaces --selector "$made_here" --output name)"; }

# loader prints the tool that brings an image to the nodes; false, after saying why, when there is none.
loader() {
  local tool=${SSB_DEMO_LOAD:-} version context
  context=$(kubectl config current-context 2> /dev/null || true)
  version=$(kubectl get nodes --output 'jsonpath={.items[0].status.nodeInfo.kubeletVersion}')
  if [ -n "$tool" ]; then :
  elif [[ $context == kind-* ]]; then tool=kind
  elif [ -n "$(kubectl get nodes --selector minikube.k8s.io/name --output name)" ]; then tool=minikube
  elif [[ $version == *+k3s* ]]; then tool=k3s; fi
  case $tool in
    kind | minikube | k3s) ;;
    *) lack "how to bring an image to this cluster's nodes is not known: build one (docker build --file" \
        "Containerfile.source --tag REGISTRY/sts-backup:TAG .), push it, and name it: SSB_DEMO_PROGRAM=REGISTRY/sts-backup:TAG"
      return 1 ;;
  esac
  for needed in "$tool" python3; do
    command -v "$needed" > /dev/null || {
      lack "this looks like a cluster of $tool, and there is no $needed on this machine: run the demo where it is, or push" \
        "an image and name it: SSB_DEMO_PROGRAM=REGISTRY/sts-backup:TAG"
      return 1
    }
  done
  if [ "$tool" = k3s ] && { [ "$(id -u)" != 0 ] || [ "$(kubectl get nodes --output name | wc -l)" != 1 ]; }; then
    lack "k3s takes an image as root, and on each node by itself: run the demo as root where there is one node, or push an" \
      "image and name it: SSB_DEMO_PROGRAM=REGISTRY/sts-backup:TAG"
    return 1
  fi
  [ -z "$(kubectl get nodes --selector 'kubernetes.io/arch!=amd64' --output name)" ] || {
    lack "not all nodes are amd64, for which the image is built here: push one for theirs and name it: SSB_DEMO_PROGRAM"
    return 1
  }
  echo "$tool"
}

# load_image makes the image of the program and brings it to all nodes.
load_image() {
  local tool folder
  tool=$(loader) || exit 1
  folder=$(mktemp -d)
  python3 "$root/tests/cluster/images/mkimg.py" --ref "$program" --entrypoint /sts-backup --user 65532:65532 \
    --file "$binary=/sts-backup" -- "$folder/sts-backup.tar"
  case $tool in
    kind) show kind load image-archive "$folder/sts-backup.tar" --name "$(kubectl config current-context | sed 's/^kind-//')" ;;
    minikube) show minikube image load "$folder/sts-backup.tar" --profile "$(kubectl get nodes --selector minikube.k8s.io/name \
      --output 'jsonpath={.items[0].metadata.labels.minikube\.k8s\.io/name}')" ;;
    k3s) show k3s ctr images import "$folder/sts-backup.tar" ;;
  esac || fail "$tool could not load the image"
  rm -rf "$folder"
}

# clean_existing removes what the demo makes, in whatever state it is. The watcher goes after the restores: it gives up
# the volumes that they keep, and ends those that are at work.
clean_existing() {
  if is_made_here "$namespace"; then
    if kubectl get crd "$kinds" > /dev/null 2>&1; then
      kubectl --namespace "$namespace" delete statefulsetrestores --all --timeout=300s || {
        echo "A restore has not given up its volumes yet. Once it has:"
        echo "  SSB_TEST_KUBECONFIG=$KUBECONFIG $root/tests/cluster/demo clean"
        return 1
      }
    fi
    kubectl delete namespace "$namespace" --timeout=300s || true
  fi
  if is_made_here "$system"; then
    helm uninstall sts-backup --namespace "$system" --wait --ignore-not-found > /dev/null || true
    kubectl delete --filename "$root/manifests/crds.yaml" --ignore-not-found --timeout=60s || true
    kubectl delete namespace "$system" --timeout=120s || true
  fi
  # Provisioners and snapshotters delete in the background.
  local left end=$((SECONDS + 120))
  while true; do
    left=$(ours_left) || { echo "The cluster does not answer: what is left there is not known. Later: demo clean"; return 1; }
    [ -n "$left" ] && ((SECONDS < end)) || break
    sleep 2
  done
  [ -z "$left" ] || { echo "Left behind: $(paste -sd ' ' <<< "$left")"; return 1; }
  cat << TEXT
Nothing is left but the image on the nodes and the admission policies of sts-backup, which concern only objects that it
marks. They stay because an API server that has seen them deleted enforces no new ones until it is restarted. To remove them:
  kubectl delete -f manifests/policies.yaml
TEXT
}

# ours_left lists the volumes and snapshots of the demo's namespace, and its namespaces, that are there.
ours_left() {
  {
    kubectl get persistentvolumes --output \
      "jsonpath={range .items[*]}persistentvolume/{.metadata.name} {.spec.claimRef.namespace}{'\n'}{end}" &&
    kubectl get volumesnapshotcontents --output \
      "jsonpath={range .items[*]}volumesnapshotcontent/{.metadata.name} {.spec.volumeSnapshotRef.namespace}{'\n'}{end}" &&
    kubectl get namespaces --selector "$made_here" --output \
      "jsonpath={range .items[*]}namespace/{.metadata.name} $namespace{'\n'}{end}"
  } | awk -v space="$namespace" '$2 == space { print $1 }'
}
