"""`mtvision leaderboard check|build …`: records that may be published, and the page that shows them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mtvision.cli.common import add_plugin_option, numeric
from mtvision.core.values import Count
from mtvision.recipe.plugins import load_plugins
from mtvision.report.baseline import SINGLE_TASK
from mtvision.report.published import CERTAINTIES
from mtvision.report.record import find_records

DESCRIPTION = """\
Check records and build the leaderboard page.

  mtvision leaderboard check results/                 every violation, with what to try next
  mtvision leaderboard build results/ --out site/     one static page, nothing loaded from elsewhere
"""


@dataclass(frozen=True)
class Subcommand:
    """One word after `mtvision leaderboard`.

    Args:
        help: one line.
        add_arguments: adds its arguments to its parser.
        run: does it; returns the exit code.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="record files, or folders that hold some")
    parser.add_argument("--strict", action="store_true", help="notes fail too")


def _check(arguments: argparse.Namespace) -> int:
    from mtvision.report.leaderboard.check import check_files

    files, findings = check_files(arguments.paths)
    for file, group in groupby(findings, key=lambda item: item.file):
        print(f"{file}:")
        for finding in group:
            print(f"  {finding}")
    violations = sum(item.level == "violation" for item in findings)
    notes = len(findings) - violations
    failed = bool(violations or (arguments.strict and notes))
    print(
        f"{len(files)} records, {violations} violation{'s' * (violations != 1)}, {notes} "
        f"note{'s' * (notes != 1)}.",
        file=sys.stderr if failed else sys.stdout,
    )
    return 1 if failed else 0


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="RESULTS", help="record files, or folders that hold some")
    parser.add_argument("--out", type=Path, required=True, metavar="SITE", help="folder; gets index.html")
    parser.add_argument(
        "--runs", nargs="+", default=[], metavar="WORK_DIR", help="embed curves and pictures of these runs"
    )
    parser.add_argument(
        "--pictures", type=numeric(Count), default=3, metavar="N", help="per run (default: %(default)s)"
    )
    parser.add_argument(
        "--published",
        nargs="*",
        default=list(CERTAINTIES),
        metavar="CERTAINTY",
        help="published rows to add (default: all, those that are not 'stated' hidden at first; without a "
        f"value: none; choices: {' '.join(CERTAINTIES)})",
    )
    parser.add_argument(
        "--every-protocol", action="store_true", help="also protocols with published rows only"
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help=f"compute gains over it: '{SINGLE_TASK}' (records of one task each) or one of the protocol's",
    )
    parser.add_argument("--title", default="mtvision leaderboard")


def _build(arguments: argparse.Namespace) -> int:
    from mtvision.report.leaderboard.page import build_page, write_page
    from mtvision.report.leaderboard.runs import RunFolders

    records = find_records(arguments.paths)
    runs = RunFolders(arguments.runs, pictures=arguments.pictures)
    text = build_page(
        records,
        runs=runs,
        certainties=arguments.published,
        baseline=arguments.baseline,
        every_protocol=arguments.every_protocol,
        title=arguments.title,
    )
    file = write_page(arguments.out, text)
    print(f"{file}: {len(records)} records, {len(text.encode()) / 1e6:.2f} MB.")
    if arguments.runs:
        missing = sum(record.config is not None and runs.folder(record) is None for record in records)
        print(f"{len(records) - missing} of them have a work directory in --runs.")
    return 0


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="RESULTS", help="record files, or folders that hold some")
    parser.add_argument("--project", default="mtvision", help="W&B project (default: mtvision)")
    parser.add_argument("--entity", help="W&B user or team (default: the key's)")
    parser.add_argument("--dir", type=Path, default=Path("work_dirs/push"), help="receives wandb/")


def _push(arguments: argparse.Namespace) -> int:
    from mtvision.tracking.push import push

    records = find_records(arguments.paths)
    done = push(records, project=arguments.project, folder=arguments.dir, entity=arguments.entity)
    print(f"{len(records)} records: {done.runs} W&B runs, {len(done.folders)} of them offline.")
    if done.hint:
        print(f"Upload them with:\n  {done.hint}")
    for name, reason in done.failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    return 1 if done.failed else 0


SUBCOMMANDS: dict[str, Subcommand] = {
    "check": Subcommand("explain what keeps records out of a leaderboard", _check_arguments, _check),
    "build": Subcommand("write the page", _build_arguments, _build),
    "push": Subcommand(
        "one W&B run per record and a table of all; offline without a key", _push_arguments, _push
    ),
}
"""What may follow `mtvision leaderboard`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtvision leaderboard",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(dest="subcommand", required=True, metavar="|".join(SUBCOMMANDS))
    for name, subcommand in SUBCOMMANDS.items():
        subparser = words.add_parser(name, help=subcommand.help, description=subcommand.help)
        subcommand.add_arguments(subparser)
        add_plugin_option(subparser)
    arguments = parser.parse_args(argv)
    load_plugins(arguments.plugin)
    return SUBCOMMANDS[arguments.subcommand].run(arguments)
