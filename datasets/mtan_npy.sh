#!/usr/bin/env bash
# Check the sets of MTAN: datasets/mtan_npy.sh DATA_ROOT [options of check_dataset]
# They are used as unpacked: DATA_ROOT/nyuv2_mtan and DATA_ROOT/cityscapes_mtan, whichever are there.
# PYTHON: the interpreter to use (default: python).
set -euo pipefail
if [ "$#" -lt 1 ] || { [ ! -d "$1/nyuv2_mtan" ] && [ ! -d "$1/cityscapes_mtan" ]; }; then
  echo "usage: $0 DATA_ROOT [options]; DATA_ROOT/nyuv2_mtan or DATA_ROOT/cityscapes_mtan must be there," >&2
  echo "see datasets/mtan_npy.md for what to download" >&2
  exit 2
fi
root=$(realpath "$1")
cd "$(dirname "$0")/.."
code=0
check() {  # folder, protocol, options: a set that is there is checked, and all of them before the script fails
  if [ -d "$root/$1" ]; then
    "${PYTHON:-python}" tools/check_dataset.py --dataset MtanNpy --root "$root/$1" --protocol "$2" \
      --split train val --sheet "$root/$2.png" "${@:3}" || code=1
  fi
}
check nyuv2_mtan nyuv2-mtan "${@:2}"
check cityscapes_mtan cityscapes-mtan-7 "${@:2}"
[ ! -d "$root/cityscapes_mtan/train/label_19" ] || check cityscapes_mtan cityscapes-mtan-19 "${@:2}"
exit $code
