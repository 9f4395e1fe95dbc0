#!/bin/bash
# debian.sh STORE FOLDER REF OUT: builds FOLDER's Containerfile to the OCI archive OUT. It may say `FROM
# localhost/debian:12`: that base is made here from packages, once, and stays in STORE with all other layers.
# No registry, no daemon. STORE's mounts are in a namespace of their own, so that none can stay behind.
set -euo pipefail
store=$1 folder=$2 ref=$3 out=$4
[ "${5-}" = in-namespace ] || exec unshare --mount --propagation private "$BASH" "$0" "$@" in-namespace

export BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$store/layers" --runroot "$store/run" "$@"; }

base=localhost/debian:12
if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  mmdebstrap --quiet --mode=root --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$context/base.tar"
  printf 'FROM scratch\nADD base.tar /\n' > "$context/Containerfile"
  buildah build --quiet --tag "$base" "$context" > /dev/null
fi
buildah build --quiet --layers --tag "$ref" "$folder" > /dev/null
buildah push --quiet "$ref" "oci-archive:$out:$ref"
