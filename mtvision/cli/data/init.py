"""`mtvision init FOLDER|FILE.json`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """\
Look at pictures and labels of your own and write what training them needs:
  NAME.py           a commented config of at most 30 lines
  NAME_sheet.png    a contact sheet: pictures beside their labels
  NAME_report.md    sizes, labels, splits, and what was assumed

FOLDER holds pictures and label maps in any layout. Tasks, classes, scales and splits are guessed from
names and content. FILE.json is a COCO file of instances. Then: mtvision train NAME.py
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtvision init", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="FOLDER|FILE.json", help="see above")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)"
    )
    parser.add_argument("--name", help="of the files and the protocol (default: from the data)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier files")
    arguments = parser.parse_args(argv)
    from mtvision.procedures.own_data.init import init

    written = init(arguments.data, arguments.out, name=arguments.name, overwrite=arguments.overwrite)
    for line in written.summary:
        print(line)
    for path in (written.config, *written.further, written.sheet, written.report):
        print(path)
    print(f"next: mtvision train {written.config}")
    return 0
