"""`mtvision check-dataset CONFIG`, or `--dataset NAME --root PATH`."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mtvision.cli.common import (
    STDOUT,
    add_plugin_option,
    numeric,
    read_with,
    spare_inputs,
    texts_in,
    write_json,
)
from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.json_file import read_json
from mtvision.core.registry import DATASETS
from mtvision.core.values import Positive
from mtvision.protocols import Protocol, get_protocol
from mtvision.recipe.check import load_checked
from mtvision.recipe.config import parse_option
from mtvision.recipe.plugins import load_plugins
from mtvision.recipe.sections import Processes
from mtvision.recipe.settings import protocol_of, to_plain_data
from mtvision.runtime.progress import counting, messages

if TYPE_CHECKING:
    from mtvision.data.check import Finding, SplitStatistics
    from mtvision.data.dataset import DenseDataset

DESCRIPTION = """\
Read a whole data set and report errors that would change a score. They are wrong counts, missing, damaged or
foreign files, labels of the wrong size or range, images in two splits, and copies that are known to be bad.

  tools/check_dataset.py configs/….py
  tools/check_dataset.py --dataset NYUDv2 --root /data/NYUDv2 --split train val

The exit code is 1 if there is any error.
"""

TOLERANT: dict[str, Any] = {"check": False, "missing_labels": "absent"}
"""Options under which a published data set opens in spite of what the check will report."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 if something would corrupt a score."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.config is None) == (arguments.dataset is None):
        parser.error("give either a config, or --dataset and --root.")
    read_with(parser, arguments, "dataset", "root", "split", "protocol", "options")
    read_with(parser, arguments, "config", "cfg_options")
    wanted = _from_config(arguments) if arguments.config else _from_names(arguments, parser)
    inputs = [arguments.config, *(text for entry, _ in wanted for text in texts_in(entry))]
    spare_inputs("--sheet", arguments.sheet, inputs)
    if not _is_report(arguments.json):
        spare_inputs("--json", arguments.json, inputs)
    from mtvision.data.check import judge, judge_overlap, render, to_json

    splits: dict[str, tuple[DenseDataset, SplitStatistics]] = {}
    findings: list[Finding] = []
    for config, protocol in wanted:
        dataset, problems = _open(config, protocol)
        findings += problems
        if dataset is None:
            continue
        count = min(arguments.limit or len(dataset), len(dataset))
        statistics = _collect(dataset, count, arguments.workers, arguments.quiet)
        findings += judge(dataset, statistics, complete=count == len(dataset))
        splits[_free_name(dataset.split, splits)] = (dataset, statistics)
        if arguments.sheet:
            _write_sheet(dataset, statistics, arguments.sheet)
    findings += judge_overlap(
        {name: statistics for name, (_, statistics) in splits.items()},
        {name: dataset.ids for name, (dataset, _) in splits.items()},
    )
    write_json(arguments.json, to_json(splits, findings))
    if arguments.json != STDOUT:
        render(Console(highlight=False), splits, findings)
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision check-dataset",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", help="a config file; its train, val and test data are checked")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change the config")
    add_plugin_option(parser)
    parser.add_argument(
        "--dataset", help="name of a data set, e.g. NYUDv2, PascalContext, Cityscapes, MtanNpy"
    )
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--split", nargs="+", default=["train", "val"], help="splits (default: train val)")
    parser.add_argument("--protocol", help="protocol id (default: the data set's own)")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="KEY=VALUE", help="further arguments of the data set"
    )
    parser.add_argument("--limit", type=numeric(Positive), help="read only the first images of each split")
    parser.add_argument(
        "--workers",
        type=numeric(Processes),
        default=os.cpu_count() or 1,
        help="processes (default: all cores)",
    )
    parser.add_argument(
        "--sheet", type=Path, help="PNG to draw samples with their labels on, one file a split"
    )
    parser.add_argument("--json", type=Path, help="write everything as JSON; - prints only JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _is_report(file: Path | None) -> bool:
    """Whether a file is what an earlier check wrote; that may lie in the data set's folder."""
    if file is None or not file.is_file():
        return False
    try:
        data = read_json(file)
    except DecodeError:
        return False
    return isinstance(data, dict) and data.keys() == {"splits", "findings"}


Wanted = list[tuple[dict[str, Any], Protocol | None]]


def _from_config(arguments: argparse.Namespace) -> Wanted:
    config, _ = load_checked(arguments.config, arguments.cfg_options, arguments.plugin)
    protocol = protocol_of(config)
    wanted: Wanted = []
    for section in ("train_data", "val_data", "test_data"):
        data: Mapping[str, Any] | None = config.get(section)
        if data and data.get("dataset"):
            entry = to_plain_data(data["dataset"])
            if all(entry != other for other, _ in wanted):
                wanted.append((entry, protocol))
    if not wanted:
        raise ValueError(f"{arguments.config}: has no data set in train_data, val_data or test_data.")
    return wanted


def _from_names(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Wanted:
    if arguments.root is None:
        parser.error("--dataset needs --root, the folder of the data set.")
    load_plugins(arguments.plugin)
    options = dict(parse_option(option, "--options") for option in arguments.options)
    protocol = get_protocol(arguments.protocol) if arguments.protocol else None
    base = {"type": arguments.dataset, "root": str(arguments.root), **options}
    return [({**base, "split": split}, protocol) for split in arguments.split]


def _open(config: Mapping[str, Any], protocol: Protocol | None) -> tuple[DenseDataset | None, list[Finding]]:
    from mtvision.data.check import Finding, judge_note, known_copies
    from mtvision.data.published import PublishedDataset

    name = str(config.get("type"))
    kind = DATASETS[name]
    entry = {**config, "transforms": "tensor"}
    root = Path(str(config.get("root", ".")))
    found = [*judge_note(root)]
    found += [Finding("warning", "known copies", text) for text in known_copies(name, root)]
    if isinstance(kind, type) and issubclass(kind, PublishedDataset):
        entry = {**entry, **TOLERANT}
    try:
        dataset: DenseDataset = DATASETS.build(entry, protocol=protocol, seed=0)
    except (FileNotFoundError, ValueError) as error:
        return None, [*found, Finding("error", str(config.get("split", name)), str(error))]
    return dataset, found


def _free_name(split: str, taken: Collection[str]) -> str:
    """The split's name; with a number where two data sets call theirs alike."""
    numbered = (f"{split} {number}" for number in itertools.count(2))
    return split if split not in taken else next(name for name in numbered if name not in taken)


def _collect(dataset: DenseDataset, count: int, workers: int, quiet: bool) -> SplitStatistics:
    from mtvision.data.check import collect

    with counting(f"reading {dataset.split}", count, quiet=quiet, transient=True) as counter:
        return collect(dataset, range(count), workers=workers, advance=counter.advance)


def _write_sheet(dataset: DenseDataset, statistics: SplitStatistics, path: Path) -> None:
    """Eight samples spread over the split, those with the rarest looks not excluded."""
    from mtvision.visualize import sheet, write_picture

    readable = [index for index, name in enumerate(dataset.ids) if name not in statistics.failures]
    if not readable:
        return
    step = max(len(readable) // 8, 1)
    samples = [dataset[index] for index in readable[::step][:8]]
    target = path.with_name(f"{path.stem}_{dataset.split}{path.suffix or '.png'}")
    write_picture(target, sheet(samples, dataset.protocol.tasks))
    messages().print(f"samples drawn on {target}")
