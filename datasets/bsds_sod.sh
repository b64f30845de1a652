#!/usr/bin/env bash
# Prepare and check: datasets/bsds_sod.sh DOWNLOADS DATA_ROOT [options of prepare_dataset]
# PYTHON: the interpreter to use (default: python).
set -euo pipefail
if [ "$#" -lt 2 ]; then
  echo "usage: $0 DOWNLOADS DATA_ROOT [options]; see datasets/bsds_sod.md for what to download" >&2
  exit 2
fi
source=$(realpath "$1")
mkdir -p "$2"
root=$(realpath "$2")
cd "$(dirname "$0")/.."
"${PYTHON:-python}" tools/prepare_dataset.py bsds_sod "$source" "$root/bsds_sod" "${@:3}"
"${PYTHON:-python}" tools/check_dataset.py --dataset BSDSSaliency --root "$root/bsds_sod" --split train val --sheet "$root/bsds_sod.png"
