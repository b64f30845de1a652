"""`mtvision table RESULTS…`: what goes into a paper, from records alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.common import add_plugin_option, read_with, spare_inputs
from mtvision.core.naming import UnknownNameError
from mtvision.recipe.plugins import load_plugins
from mtvision.report.baseline import SINGLE_TASK, fold_single_task, require_baseline, with_gain
from mtvision.report.comparable.ledger import ledger_grid
from mtvision.report.compare import comparison_grid
from mtvision.report.grid import Grid
from mtvision.report.marked import count_tables, difference, regenerate
from mtvision.report.paired import paired_grids
from mtvision.report.published import CERTAINTIES, published_records, published_rows
from mtvision.report.record import Record, find_records, json_files
from mtvision.report.render import FORMATS
from mtvision.report.table import build_grid, is_published
from mtvision.runtime.atomic import write_text

DESCRIPTION = """\
Make a table of records. Runs that differ in their seed alone form one row, mean ± standard deviation.
Records of several protocols are an error (choose one with --protocol). So are scores of several evaluators.
Records that differ in protocol digest, test images, provenance or replaced metrics stand in groups of their
own.
A lead inside the noise of two or more seeds is not bold.

  mtvision table results/ --protocol nyud-invpt --format latex
  mtvision table results/ --protocol nyud-invpt --published          published beside ours, and a verdict
  mtvision table work_dirs/sweep --baseline single-task --sort gain  gain over the single-task runs in there
  mtvision table work_dirs/sweep --against parallel                  paired over seeds: is it better?
  mtvision table results/mosd --ledger single-task parallel          negative transfer, over seeds and images

`mtvision table --write README.md` regenerates the lines between  <!-- table: ARGUMENTS -->  and  <!-- end -->
of a document. `--check README.md` fails if they were edited. Paths in ARGUMENTS start at the document's
folder.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision table",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", nargs="*", metavar="RESULTS", help="record files, or folders that hold some"
    )
    add_plugin_option(parser)
    parser.add_argument("--protocol", help="id; needed where the records have several")
    parser.add_argument("--format", default="terminal", metavar="|".join(FORMATS))
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="method backbone provenance source config seeds gain parameters trainable active macs "
        "latency memory hours batch, task/score, or a task for its headline score "
        "(default: what the records have)",
    )
    parser.add_argument("--sort", metavar="COLUMN", help="best first; default: order of the files")
    parser.add_argument("--method", nargs="+", help="only these methods")
    parser.add_argument("--backbone", nargs="+", help="only these backbones")
    parser.add_argument("--provenance", nargs="+", help="only these: ours released paper smoke")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help=f"compute the gain over this: '{SINGLE_TASK}' (the records of one task each, trained alike) "
        "or a baseline of the protocol",
    )
    parser.add_argument(
        "--against",
        metavar="METHOD",
        help="add paired differences from this row, seed by seed; 'best': from the best row of each score",
    )
    parser.add_argument(
        "--ledger",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="only say, task by task, whether rows are better or worse than these: "
        f"'{SINGLE_TASK}' or the method of a row; paired over seeds and images",
    )
    parser.add_argument(
        "--published",
        nargs="*",
        metavar="CERTAINTY",
        help=f"add published rows, and a table of differences (default: stated; {' '.join(CERTAINTIES)})",
    )
    parser.add_argument(
        "--mixed",
        choices=("refuse", "mark"),
        default="refuse",
        help="scores of several evaluators in one column: refuse, or mark and never rank",
    )
    parser.add_argument("--title", help="replaces the protocol's title; '' = none")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    documents = parser.add_mutually_exclusive_group()
    documents.add_argument(
        "--write", nargs="+", type=Path, metavar="DOCUMENT", help="regenerate marked tables"
    )
    documents.add_argument(
        "--check", nargs="+", type=Path, metavar="DOCUMENT", help="fail if they are not current"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    load_plugins(arguments.plugin)
    if arguments.write or arguments.check:
        others = [name for name in vars(arguments) if name not in ("write", "check", "plugin")]
        read_with(parser, arguments, "results", *(name for name in others if name != "results"))
        if arguments.results:
            parser.error("RESULTS are in the documents that --write and --check read; leave them out.")
        return _documents(arguments.write or arguments.check, check=bool(arguments.check))
    if not arguments.results:
        parser.error("give record files or folders, or --write or --check with a document")
    for path in map(Path, arguments.results):
        spare_inputs("--out", arguments.out, json_files(path) if path.is_dir() else [path])
    text = table_text(arguments)
    if arguments.out:
        write_text(arguments.out, text + "\n")
    else:
        print(text)
    return 0


def _documents(paths: Sequence[Path], *, check: bool) -> int:
    stale = 0
    for path in paths:
        old = path.read_text(encoding="utf-8")

        def make(words: Sequence[str], folder: Path = path.parent) -> str:
            arguments = _parser().parse_args([*words, "--format", "markdown"])
            arguments.results = [str(folder / name) for name in arguments.results]
            return table_text(arguments)

        new = regenerate(old, make, source=str(path))
        if new == old:
            print(f"{path}: {count_tables(old)} tables, current.")
        elif check:
            stale += 1
            print(difference(old, new, str(path)))
            print(
                f"{path}: tables differ from the records; run `mtvision table --write {path}`.",
                file=sys.stderr,
            )
        else:
            write_text(path, new)
            print(f"{path}: {count_tables(old)} tables, regenerated.")
    return 1 if stale else 0


def table_text(arguments: argparse.Namespace) -> str:
    """The table, and the comparisons that were asked for, in one format.

    Raises:
        MixedRecordsError: records that must not share a table.
        UnknownNameError: an unknown protocol, method, column, format, …
        ValueError: no records, or nothing to compare with.
    """
    records = _selected(find_records(arguments.results), arguments)
    if arguments.baseline:
        require_baseline((record.protocol for record in records), arguments.baseline)
        problems: list[str] = []
        records = with_gain(records, arguments.baseline, problems)
        for problem in problems:
            print(f"no gain: {problem}", file=sys.stderr)
    grids = [ledger_grid(records, name) for name in arguments.ledger] or [_main_grid(records, arguments)]
    if arguments.published is not None:
        grids.append(_comparison(records, arguments))
    if arguments.against:
        grids += paired_grids(records, arguments.against)
    if arguments.format not in FORMATS:
        raise UnknownNameError("table format", arguments.format, FORMATS)
    return "\n\n".join(FORMATS[arguments.format](grid) for grid in grids)


def _selected(records: Sequence[Record], arguments: argparse.Namespace) -> list[Record]:
    kept = list(records)
    if arguments.protocol:
        kept = [record for record in kept if record.protocol == arguments.protocol]
        if records and not kept:
            raise UnknownNameError(
                "protocol of these records", arguments.protocol, {record.protocol for record in records}
            )
    for field in ("method", "backbone", "provenance"):
        wanted = getattr(arguments, field)
        if wanted:
            known = {getattr(record, field) for record in kept}
            for name in wanted:
                if name not in known:
                    raise UnknownNameError(f"{field} of these records", name, known)
            kept = [record for record in kept if getattr(record, field) in wanted]
    return kept


def _main_grid(records: Sequence[Record], arguments: argparse.Namespace) -> Grid:
    shown = fold_single_task(records) if arguments.baseline == SINGLE_TASK else list(records)
    options = {"columns": arguments.columns, "title": arguments.title}
    grid = build_grid(shown, mixed=arguments.mixed, **options)
    if arguments.published is not None:  # our own mixture was refused above; published tools are only marked
        shown = [*published_records(shown[0].protocol, _certainties(arguments)), *shown]
        grid = build_grid(shown, mixed="mark", **options)
    if arguments.sort == "gain" and arguments.baseline and all(record.gain is None for record in records):
        return grid  # why no row has a gain is said already
    return grid.sorted_by(arguments.sort) if arguments.sort else grid


def _certainties(arguments: argparse.Namespace) -> tuple[str, ...]:
    return tuple(arguments.published) or ("stated",)


def _comparison(records: Sequence[Record], arguments: argparse.Namespace) -> Grid:
    own = [record for record in records if not is_published(record)]
    grid = comparison_grid(own, published_rows(own[0].protocol, _certainties(arguments)))
    if not grid.rows:
        rows = sorted({f"{record.method} / {record.backbone}" for record in own})
        note = f"nothing published has the method and backbone of {', '.join(rows)}."
        return Grid(grid.title, grid.columns[:3], (), (("", note),))
    return grid
