#!/usr/bin/env bash
# Prepare and check: datasets/cityscapes.sh DOWNLOADS DATA_ROOT [options of prepare_dataset]
set -euo pipefail
if [ "$#" -lt 2 ]; then
  echo "usage: $0 DOWNLOADS DATA_ROOT [options]; see datasets/cityscapes.md for what to download" >&2
  exit 2
fi
cd "$(dirname "$0")/.."
python tools/prepare_dataset.py cityscapes "$1" "$2/cityscapes" "${@:3}"
python tools/check_dataset.py --dataset Cityscapes --root "$2/cityscapes" --split train val --sheet "$2/cityscapes.png"
