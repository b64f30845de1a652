"""Look at data and losses before the first step: contradictions stop the run, oddities are said."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from mtvision.core.naming import ReportedError
from mtvision.core.non_finite import NonFiniteError
from mtvision.core.task import Task
from mtvision.data.check import Finding, TaskStatistics, to_json
from mtvision.data.dataset import DenseDataset
from mtvision.engine.module import TrainingModule
from mtvision.engine.start.from_data import Start, apply_starts, starts_of
from mtvision.engine.start.losses import (
    LossAtStart,
    first_images,
    judge_losses,
    losses_at_start,
    untouched_states,
)
from mtvision.engine.start.reading import SplitLook, judge_splits, read_splits
from mtvision.losses.task_losses import NonFiniteLossError
from mtvision.metrics.building import build_metric
from mtvision.metrics.statistics import ConstantPredictor
from mtvision.metrics.sums import total
from mtvision.recipe.settings import Settings
from mtvision.runtime.atomic import write_text
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.launch import gather, is_main_process

LOOK_FILE = "first_look.json"


class FirstLookError(ReportedError, ValueError):
    """What was seen before the first step cannot be right; the message lists all of it."""

    exit_code = 1


@dataclass(frozen=True)
class Seen:
    """What the first look found.

    Args:
        splits: {split: what was read of it}.
        findings: about data and losses.
        losses: {task: its loss before the first step}.
        constant: {task: headline score of the constant predictor}, on the images read.
        starts: {task: where its output starts}, with `training.init_from_data`.
    """

    splits: Mapping[str, SplitLook]
    findings: list[Finding]
    losses: Mapping[str, LossAtStart] = field(default_factory=dict)
    constant: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, Start] = field(default_factory=dict)


def first_look(
    settings: Settings,
    module: TrainingModule,
    datasets: Mapping[str, DenseDataset],
    batch_size: int,
    work_dir: Path,
    console: Console,
) -> None:
    """Read a sample of every split, say what it holds, and stop where a score or a loss cannot be right.

    The main process reads; all of them learn the verdict. Random states, modes and buffers stay as they are.
    A run is therefore the same with and without a look, unless `training.init_from_data` changes its start.

    Args:
        settings: of the run.
        module: freshly built, on its device.
        datasets: {split: data set}; `train` is needed, and comes first.
        batch_size: images per process and step.
        work_dir: receives `first_look.json`.
        console: of the main process.

    Raises:
        FirstLookError: a contradiction, with `training.first_look_errors="stop"`.
        NonFiniteError: a loss is NaN or infinite before the first step; names the samples.
    """
    training = settings.training
    if not training.first_look:
        console.print("No first look at the data (training.first_look=0).")
        return
    seen, notes = Seen({}, []), list[str]()
    sick: NonFiniteLossError | None = None
    if is_main_process():
        try:
            with untouched_states():
                seen, notes = _look(settings, module, datasets, batch_size)
            write_text(work_dir / LOOK_FILE, json.dumps(_plain(seen), indent=1) + "\n")
        except NonFiniteLossError as error:
            sick = error  # raised where the other processes are not waiting
        for line in [*_lines(seen, settings.protocol.tasks), *notes]:
            console.print(line, markup=False, soft_wrap=True)
    errors = [item for item in seen.findings if item.level == "error"]
    errors, starts, text = gather((errors, seen.starts, None if sick is None else str(sick)))[0]
    if text is not None:
        raise sick or NonFiniteError(text)
    if errors and training.first_look_errors == "stop":
        lines = "".join(f"\n  {item.where}: {item.text}" for item in errors)
        raise FirstLookError(
            f"{work_dir}: nothing was trained, because the first look found what cannot be right:{lines}\n"
            '`mtvision check-dataset CONFIG` reads everything. training.first_look_errors="warn" trains all '
            "the same."
        )
    if starts and not is_main_process():
        apply_starts(module, starts)


def _look(
    settings: Settings, module: TrainingModule, datasets: Mapping[str, DenseDataset], batch_size: int
) -> tuple[Seen, list[str]]:
    """What is seen, and lines on what could not be done."""
    training, protocol = settings.training, settings.protocol
    splits = read_splits(datasets, training.first_look)
    findings = judge_splits(splits)
    if training.first_look_errors == "stop" and any(item.level == "error" for item in findings):
        return Seen(splits, findings), []
    starts: dict[str, Start] = {}
    notes: list[str] = []
    if training.init_from_data:
        starts, notes = starts_of(module, splits["train"].labels)
        without = apply_starts(module, starts)
        if without:
            notes.append(f"no output layer with a bias is declared by the heads of {', '.join(without)}")
    batch = first_images(datasets["train"], batch_size, settings.seed)
    skip = training.non_finite == "skip"
    losses = losses_at_start(module, batch, training.precision, skip=skip)
    own = protocol.family == "own" and not training.init_from_data
    weighs = module.balancer.needs == "scalar"
    findings += judge_losses(losses, protocol.task_names, own=own, weighs=weighs)
    options = {**settings.evaluation.metric_options, **settings.evaluation.during_training}
    return Seen(splits, findings, losses, _constant(protocol.tasks, splits, options), starts), notes


def _constant(
    tasks: Sequence[Task], splits: Mapping[str, SplitLook], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """Headline scores of the best constant of the training labels, on the labels read of the last split."""
    attempts = Attempts(quiet=True)  # the evaluation at the end says what fails
    last = list(splits.values())[-1]
    scores = {
        task.name: attempts.run(
            task.name,
            partial(_constant_score, task, splits["train"].labels, last.labels, options.get(task.name, {})),
        )
        for task in tasks
    }
    return {name: score for name, score in scores.items() if score is not None}


def _constant_score(
    task: Task,
    learned: Sequence[Mapping[str, Any]],
    scored: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> float | None:
    predictor, metric = ConstantPredictor(task), build_metric(task, **options)
    for entry in learned:
        if task.name in entry:
            predictor.update(entry[task.name])
    labels = [entry[task.name] for entry in scored if task.name in entry]
    if metric.expensive:
        labels = labels[:1]
    sums = [
        metric.measure(predictor.prediction((label.shape[-2], label.shape[-1])), label) for label in labels
    ]
    known = [item for item in sums if metric.has_label(item)]
    return float(metric.score(total(known))[task.headline]) if known else None


def _lines(seen: Seen, tasks: Sequence[Task]) -> list[str]:
    """The description, a line a split and task, then losses and findings."""
    lines = []
    for name, look in seen.splits.items():
        sizes = ", ".join(f"{height}x{width}" for (height, width), _ in look.statistics.sizes.most_common(2))
        more = ", …" if len(look.statistics.sizes) > 2 else ""
        lines.append(
            f"First look, {name}: {look.statistics.read} of {len(look.dataset)} images, {sizes}{more}"
        )
        for task in look.dataset.tasks.values():
            counted = look.statistics.tasks.get(task.name, TaskStatistics())
            lines.append(f"  {task.name}: {_in_words(task, counted, look.statistics.read)}")
    if seen.losses:
        parts = [
            f"{name} {item.loss:.3g}" + ("" if item.share is None else f" ({item.share:.0%})")
            for name, item in seen.losses.items()
        ]
        lines.append(f"Losses before the first step (share): {', '.join(parts)}")
    if seen.starts:
        scaled = [f"{name} by {item.scale:.3g}" for name, item in seen.starts.items() if item.scale != 1]
        lines.append(
            f"Outputs start at constants of the data: {', '.join(seen.starts)}. "
            f"Losses are divided: {', '.join(scaled) or 'none'}."
        )
    if seen.constant:
        headlines = {task.name: task.headline for task in tasks}
        parts = [f"{name} {headlines[name]} {score:.4g}" for name, score in seen.constant.items()]
        lines.append(f"Constant predictor on the images read: {', '.join(parts)}")
    return lines + [
        f"{item.level}: {item.where}: {item.text}" for item in seen.findings if item.level != "note"
    ]


def _in_words(task: Task, counted: TaskStatistics, read: int) -> str:
    if not counted.labelled:
        return "no label"
    some = "" if counted.images == read else f" in {counted.images} images"
    shown = f"{1 - counted.ignored:.0%} labelled{some}"
    if task.label == "values":
        means = ", ".join(f"{value / counted.labelled:.3g}" for value in counted.sums[:4])
        unit = f" {task.unit}" if task.unit else ""
        return f"{counted.low:.4g} to {counted.high:.4g}{unit}, mean {means}; {shown}"
    most, pixels = counted.histogram.most_common(1)[0]
    if task.label != "classes":
        return f"{len(counted.histogram)} ids; {shown}"
    name = task.class_names[most] if task.class_names else str(most)
    share = f"{name} {pixels / counted.labelled:.0%}"
    return f"{len(counted.histogram)} of {task.num_classes} classes, most {share}; {shown}"


def _plain(seen: Seen) -> dict[str, Any]:
    """Everything as JSON holds it; numbers that are not finite are null."""
    read = {name: (look.dataset, look.statistics) for name, look in seen.splits.items()}
    losses = {name: asdict(item) for name, item in seen.losses.items()}
    return {
        **to_json(read, seen.findings),
        "losses": {name: {**entry, "loss": _finite(entry["loss"])} for name, entry in losses.items()},
        "constant": {name: _finite(score) for name, score in seen.constant.items()},
        "starts": {name: asdict(item) for name, item in seen.starts.items()},
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
