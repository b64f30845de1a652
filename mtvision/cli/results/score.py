"""`mtvision score DIR --config CONFIG`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from mtvision.cli.common import STDOUT, add_plugin_option, numeric, spare_inputs, write_json
from mtvision.core.registry import replaced_entries
from mtvision.core.values import Positive
from mtvision.protocols import Protocol
from mtvision.recipe.check import load_checked
from mtvision.recipe.config import RunConfig, parse_option
from mtvision.recipe.plugins import plugin_entries
from mtvision.recipe.sections import Workers
from mtvision.recipe.settings import Settings
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.display import display_of
from mtvision.report.record import Record
from mtvision.report.table import render_table
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.progress import messages

if TYPE_CHECKING:
    from mtvision.evaluation.evaluator import SampleEvaluator, Scores
    from mtvision.evaluation.prediction_files import PredictionFiles
    from mtvision.metrics.statistics import Interval

    Intervals = dict[str, dict[str, Interval]]

RECORDED = (
    "protocol",
    "protocol_digest",
    "scored",
    "replaced",
    "plugins",
    "method",
    "backbone",
    "tasks",
    "scores",
    "notes",
)
"""Fields of a record that `--json` writes."""

AGAIN = "score the folder again"

DESCRIPTION = """\
Score predictions on disk, of this suite (`mtvision test --save-predictions`) or of any other code base,
against the labels of a config's test data. No network is built; the config needs `protocol` and `test_data`.

DIR/<task>/<image id>.png or .npy, one file per image of the split, at the size of the labels:
  class maps      PNG of class ids, 8 or 16 bits
  probabilities   (edge, saliency) gray PNG of 8 or 16 bits, or NPY in 0..1
  other maps      NPY (C, H, W) in the units of the labels: metres, unit vectors
What the numbers mean is decided from all files of a task (0 and 1, 0 to 255, ...). What cannot be told is
refused; --maps says it. Tasks without a folder are not scored.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    config, settings = load_checked(
        arguments.config, arguments.cfg_options, arguments.plugin, ("test_data or val_data",)
    )
    from mtvision.data.manifest import data_manifest, scored_data
    from mtvision.engine.records import portable, require_possible, require_whole
    from mtvision.evaluation.evaluator import SampleEvaluator
    from mtvision.evaluation.prediction_files import PredictionFiles
    from mtvision.evaluation.prediction_manifest import MANIFEST
    from mtvision.evaluation.prediction_maps import map_options
    from mtvision.evaluation.scoring import evaluate_files
    from mtvision.recipe.data import build_dataset, evaluation_loader

    predictions = arguments.predictions
    spare_inputs("--json", arguments.json, [arguments.config, predictions / MANIFEST])
    spare_inputs("--json", arguments.json, (predictions / task.name for task in settings.protocol.tasks))
    tasks = settings.protocol.tasks
    said = map_options(dict(parse_option(option, "--maps") for option in arguments.maps), tasks)
    files = PredictionFiles.find(arguments.predictions, tasks, said)
    section = _section(arguments.split, config, files)
    _check_protocol(files, settings.protocol)
    protocol = settings.protocol.select([task.name for task in files.tasks])
    dataset = build_dataset(section, config[section], settings.protocol, settings.seed)
    options = {
        name: values
        for name, values in settings.evaluation.metric_options.items()
        if name in protocol.task_names
    }
    workers = settings.evaluation.workers if arguments.workers is None else arguments.workers
    evaluator = SampleEvaluator(protocol.tasks, options, workers)
    console = messages()
    _say_what_is_left_out(files, settings.protocol, console)
    try:
        scores = evaluate_files(files, evaluation_loader(dataset, config[section]), evaluator, console)
    finally:
        evaluator.close()
    record = replace(_record(config, settings, files, scores), notes=evaluator.notes())
    require_possible(record, files.folder, scores_only=True)
    measured = Attempts()
    record = replace(record, scored=measured.run("scored data", partial(scored_data, dataset), AGAIN))
    manifest = measured.run("data", partial(data_manifest, dataset), AGAIN)
    resamples, intervals = arguments.bootstrap, {}
    if resamples:
        intervals = measured.run("intervals", partial(_intervals, evaluator, resamples), AGAIN) or {}
    content = _as_json(record, intervals, resamples, files, len(dataset))
    content |= {"data": manifest, "missing": portable(measured.lines)}
    measured.run("--json", partial(write_json, arguments.json, content))
    if arguments.json != STDOUT:
        later = Attempts()
        later.run("table", lambda: print(render_table([record], format="terminal"), flush=True))
        if intervals:
            table = partial(interval_table, record, intervals, resamples, len(dataset))
            later.run("table of intervals", lambda: Console().print(table()))
    require_whole(record, measured.lines)
    return 0


def interval_table(record: Record, intervals: Intervals, resamples: int, images: int) -> Table:
    """All scores with their intervals as a terminal table."""
    title = f"95 % intervals over {images} images, {resamples} resamples"
    table = Table("task", "score", title=title)
    for name in ("value", "from", "to"):
        table.add_column(name, justify="right")
    for task, values in intervals.items():
        entry = record.task(task)
        for score, interval in values.items():
            display = display_of(entry, score)
            numbers = [display.text(item) for item in (interval.score, interval.low, interval.high)]
            table.add_row(task, f"{display.title} {display.unit}".strip(), *numbers)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision score", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", type=Path, metavar="DIR", help="folder with one folder per task")
    parser.add_argument("--config", required=True, help="a config file that names the protocol and the data")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change values of the config"
    )
    add_plugin_option(parser)
    parser.add_argument(
        "--split",
        choices=("test", "val"),
        help="which data section (default: the one the predictions were made on, else test)",
    )
    parser.add_argument(
        "--maps",
        nargs="+",
        default=[],
        metavar="TASK.OPTION=VALUE",
        help="what the files hold, e.g. depth.scale=1000 (millimetres), normals.encoding=shifted (0..255), "
        "edge.encoding=mask",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all scores to this file")
    parser.add_argument(
        "--bootstrap",
        type=numeric(Positive),
        metavar="N",
        help="95 %% intervals from N resamples of the images",
    )
    parser.add_argument(
        "--workers",
        type=numeric(Workers),
        metavar="N",
        help="processes for boundary scores (default: the config's)",
    )
    return parser


def _section(split: str | None, config: RunConfig, files: PredictionFiles) -> str:
    chosen = split or str((files.manifest or {}).get("split", "test"))
    return f"{chosen}_data" if config[f"{chosen}_data"] else "val_data"


def _check_protocol(files: PredictionFiles, protocol: Protocol) -> None:
    made_for = (files.manifest or {}).get("protocol", protocol.id)
    if made_for != protocol.id:
        raise ValueError(
            f"{files.folder}: the predictions were made under protocol '{made_for}', the config is of "
            f"'{protocol.id}'; give the config of that protocol."
        )


def _say_what_is_left_out(files: PredictionFiles, protocol: Protocol, console: Console) -> None:
    absent = [name for name in protocol.task_names if name not in files.paths]
    if absent:
        console.print(
            f"not scored, because {files.folder} has no such folder: {', '.join(absent)}", soft_wrap=True
        )
    if files.ignored:
        console.print(f"not a task of {protocol.id}: {', '.join(files.ignored)}", soft_wrap=True)
    for line in files.left_out:
        console.print(line, soft_wrap=True, markup=False)


def _intervals(evaluator: SampleEvaluator, resamples: int) -> Intervals:
    from mtvision.metrics.statistics import bootstrap

    result: Intervals = {}
    for task in evaluator.tasks:
        parts = [entry[task.name] for entry in evaluator.per_image.values() if task.name in entry]
        if parts:
            result[task.name] = bootstrap(evaluator.metrics[task.name], parts, resamples=resamples)
    return result


def _record(config: RunConfig, settings: Settings, files: PredictionFiles, scores: Scores) -> Record:
    from mtvision.engine.records import backbone_name

    protocol = settings.protocol.select([task.name for task in files.tasks])
    manifest = files.manifest
    own = manifest is not None and config["model"] is not None
    return Record(
        protocol=protocol.id,
        protocol_title=protocol.title,
        protocol_digest=protocol.digest(),
        replaced=replaced_entries(),
        plugins=plugin_entries(),
        method=str((manifest or {}).get("method", files.folder.resolve().name)),
        backbone=str((manifest or {}).get("backbone", backbone_name(config) if own else "–")),
        provenance=config["provenance"] if own else "released",
        source=f"predictions in {files.folder.resolve().name}",
        tasks=describe_tasks(protocol.tasks, settings.evaluation.metric_options),
        scores=scores,
    )


def _as_json(
    record: Record, intervals: Intervals, resamples: int | None, files: PredictionFiles, images: int
) -> dict[str, Any]:
    plain = record.to_json()
    manifest: Mapping[str, Any] = files.manifest or {}
    content = {name: plain[name] for name in RECORDED}
    content |= {"images": images, "predictions": {k: v for k, v in manifest.items() if k != "sizes"} or None}
    content["encodings"] = {task.name: files.encoding(task).describe() for task in files.tasks}
    if resamples:
        content["bootstrap"] = {"resamples": resamples, "confidence": 0.95}
        content["intervals"] = {
            task: {name: [_number(item.low), _number(item.high)] for name, item in values.items()}
            for task, values in intervals.items()
        }
    return content


def _number(value: float) -> float | None:
    return value if isfinite(value) else None
