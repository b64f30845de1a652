"""`mtvision share CHECKPOINT`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import read_with

DESCRIPTION = """\
Make a trained network usable for others: one safetensors file that holds its config, tasks, protocol and
licence, a model card, and its scores as the Hugging Face hub reads them. No file holds code.

  mtvision share work_dirs/first --out shared --licence CC-BY-4.0
  mtvision share work_dirs/first --push ada/rooms        needs a token: hf auth login

Then: mtvision predict shared IMAGE, mtvision predict hf:ada/rooms IMAGE
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtvision share", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="a file, the folder of a run, hf:owner/name or demo")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="write the files there")
    where.add_argument("--push", metavar="OWNER/NAME", help="upload them to the hub")
    parser.add_argument("--licence", metavar="NAME", help="SPDX name of the weights' licence, e.g. CC-BY-4.0")
    parser.add_argument("--overwrite", action="store_true", help="with --out: replace files of these names")
    parser.add_argument("--half", action="store_true", help="store weights in 16 bits: half the size")
    parser.add_argument("--private", action="store_true", help="with --push: a new repository is private")
    parser.add_argument("--name", help="title of the card (default: OWNER/NAME, or that of the folder)")
    arguments = parser.parse_args(argv)
    read_with(parser, arguments, "push", "private")
    read_with(parser, arguments, "out", "overwrite", "name")
    from mtvision.share.hub import push_to_hub, write_shared

    options = {"licence": arguments.licence, "half": arguments.half}
    if arguments.push is not None:
        print(push_to_hub(arguments.checkpoint, arguments.push, private=arguments.private, **options))
        return 0
    name = arguments.name or arguments.out.resolve().name
    files = write_shared(
        arguments.checkpoint, arguments.out, name=name, overwrite=arguments.overwrite, **options
    )
    for path in files:
        print(path)
    return 0
