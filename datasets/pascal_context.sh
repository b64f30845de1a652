#!/usr/bin/env bash
# Prepare and check: datasets/pascal_context.sh DOWNLOADS DATA_ROOT [options of prepare_dataset]
set -euo pipefail
if [ "$#" -lt 2 ]; then
  echo "usage: $0 DOWNLOADS DATA_ROOT [options]; see datasets/pascal_context.md for what to download" >&2
  exit 2
fi
cd "$(dirname "$0")/.."
python tools/prepare_dataset.py pascal_context "$1" "$2/PASCALContext" --precompute "${@:3}"
python tools/check_dataset.py --dataset PascalContext --root "$2/PASCALContext" --split train val --sheet "$2/pascal_context.png"
