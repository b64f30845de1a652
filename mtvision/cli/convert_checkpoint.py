"""`mtvision convert-checkpoint --from SOURCE IN OUT`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtvision.models.convert.conversion import SOURCES

DESCRIPTION = """\
Official checkpoints to ours, and ours back to the layout of the authors' code.

  mtvision convert-checkpoint --from mtmamba mtmamba_nyud.pth.tar mtmamba_nyud.safetensors
  mtvision convert-checkpoint --to mtmamba ours.safetensors theirs.pth

Files are read without running any code in them. Every tensor is either converted or named with the reason why
it was dropped; an unknown tensor is an error.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtvision convert-checkpoint",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from", dest="source", choices=SOURCES, help="layout of the file that is read")
    direction.add_argument("--to", dest="target", choices=SOURCES, help="layout of the file that is written")
    parser.add_argument(
        "read", type=Path, metavar="IN", help="checkpoint to read (.pth, .pth.tar, .safetensors)"
    )
    parser.add_argument(
        "write", type=Path, metavar="OUT", help="file to write: .safetensors with --from, .pth with --to"
    )
    arguments = parser.parse_args(argv)
    from mtvision.models.convert.files import convert_file

    report = convert_file(
        arguments.source or arguments.target,
        arguments.read,
        arguments.write,
        reverse=arguments.target is not None,
    )
    print(report)
    print(f"written: {arguments.write}")
    return 0
