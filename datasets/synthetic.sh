#!/usr/bin/env bash
# Check the embedded scenes: datasets/synthetic.sh DATA_ROOT [options of check_dataset]
# There is nothing to download or to prepare. PYTHON: the interpreter to use (default: python).
set -euo pipefail
if [ "$#" -lt 1 ]; then
  echo "usage: $0 DATA_ROOT [options]; see datasets/synthetic.md. DATA_ROOT gets a sheet of samples" >&2
  exit 2
fi
mkdir -p "$1"
root=$(realpath "$1")
cd "$(dirname "$0")/.."
"${PYTHON:-python}" tools/check_dataset.py configs/synthetic/parallel_tiny_synthetic_1xb16_1000.py \
  --sheet "$root/synthetic.png" "${@:2}"
