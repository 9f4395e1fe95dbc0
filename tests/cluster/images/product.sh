#!/bin/bash
# product.sh STORE CONTAINERFILE FOLDER REF OUT: builds the image of the program that lies in FOLDER to the OCI archive OUT.
# STORE's mounts are in a namespace of their own, so that none can stay behind.
set -euo pipefail
store=$1 containerfile=$2 folder=$3 ref=$4 out=$5
[ "${6-}" = in-namespace ] || exec unshare --mount --propagation private "$BASH" "$0" "$@" in-namespace

export BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$store/layers" --runroot "$store/run" "$@"; }

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$folder/sts-backup" "$context/"
buildah build --quiet --file "$containerfile" --tag "$ref" "$context" > /dev/null
buildah push --quiet "$ref" "oci-archive:$out:$ref"
