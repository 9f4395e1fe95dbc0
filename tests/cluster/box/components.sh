#!/bin/bash
# components.sh: runs in the box: prints each component that was started, and whether it runs.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=run.sh
source "$(dirname "$0")/run.sh"
for file in "$dir"/pids/*; do
  component=${file##*/}
  if running "$component"; then echo "$component runs"; else echo "$component has ended"; fi
done
