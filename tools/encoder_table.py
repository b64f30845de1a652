"""What the suite can do with each family of encoders, found by trying: docs/encoders.md.

    python tools/encoder_table.py --out docs/encoders.md
    python tools/encoder_table.py --only DINOv3 --again slimming

Per family, a small network with random weights is built and tried in every column.
Finished cells are kept in the work dir, one JSON file per family, and not tried again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtvision.runtime.atomic import write_text
from mtvision.testing.encoders import COLUMNS, ENCODERS, outcome, page


def main(argv: Sequence[str] | None = None) -> int:
    """Try what is not tried yet and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/encoder_table"))
    parser.add_argument("--only", nargs="+", choices=ENCODERS, default=list(ENCODERS), metavar="FAMILY")
    parser.add_argument("--again", nargs="+", choices=COLUMNS, default=[], help="columns to try again")
    parser.add_argument("--out", type=Path, help="page to write, if all families are tried")
    arguments = parser.parse_args(argv)
    for family in arguments.only:
        file = _file(arguments.work_dir, family)
        found = _read(file)
        for column in COLUMNS:
            if column not in found or column in arguments.again:
                found[column] = outcome(column, ENCODERS[family])
                write_text(file, json.dumps(found, indent=2) + "\n")
        print(family, dict(found), flush=True)
    if arguments.out:
        write_text(arguments.out, page({name: _read(_file(arguments.work_dir, name)) for name in ENCODERS}))
    return 0


def _file(folder: Path, family: str) -> Path:
    name = "".join(letter if letter.isalnum() else "_" for letter in family)
    return folder / f"{name}.json"


def _read(file: Path) -> dict[str, str]:
    found: Mapping[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return dict(found)


if __name__ == "__main__":
    raise SystemExit(main())
