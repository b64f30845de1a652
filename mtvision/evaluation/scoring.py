"""Scoring a network, and the constant predictor every score should be compared with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from mtvision.core.non_finite import all_finite
from mtvision.core.prediction import to_prediction
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.data.dataset import DenseDataset
from mtvision.evaluation.evaluator import SampleEvaluator, Scores, labels_of
from mtvision.evaluation.overlap import Behind, ahead
from mtvision.evaluation.prediction_files import PredictionFiles
from mtvision.evaluation.prediction_manifest import PredictionFilesError
from mtvision.metrics.checks import check_logits
from mtvision.metrics.statistics import ConstantPredictor
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.sections import EvaluationSettings
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.precision import Precision, autocast
from mtvision.runtime.progress import track
from mtvision.visualize import panel, write_picture

BAD_FILE = (
    "Look at the code that wrote the file: a sick network, float16 beyond 65504, or a map that was never "
    "filled in."
)
"""What to try next where a prediction on disk cannot be scored."""


@torch.no_grad()
def predict_batch(
    network: Network,
    tasks: Sequence[Task],
    batch: Batch,
    precision: Precision = "fp32",
    *,
    stay: Collection[str] = (),
) -> list[dict[str, Tensor]]:
    """Predictions per sample, without batch axis, on the CPU.

    Args:
        network: in the mode it should run in; the batch is moved to its device.
        tasks: what to predict; the network may have more.
        batch: images (B, 3, H, W); predictions have the size of its labels.
        precision: of the forward pass.
        stay: tasks whose predictions stay on the network's device.

    Raises:
        PredictionError: logits are NaN or infinite, which `argmax` and `sigmoid` would hide; names task and
            image.
    """
    device = next(network.parameters()).device
    batch = batch.to(device)
    names = [task.name for task in tasks]
    asked = None if set(names) == set(network.task_names) else names
    with autocast(precision, device):
        logits = network(batch.image, asked, size=batch.label_size)
    for name in names:
        _check_logits(name, logits[name], batch)
    predictions = {task.name: to_prediction(task, logits[task.name]) for task in tasks}
    predictions = {name: maps if name in stay else maps.cpu() for name, maps in predictions.items()}
    return [{name: maps[i] for name, maps in predictions.items()} for i in range(len(batch))]


def _check_logits(task: str, logits: Tensor, batch: Batch) -> None:
    if all_finite(logits):
        return
    for image, values in zip(batch.ids, logits, strict=True):
        check_logits(values, f"task '{task}', image '{image}'")


def evaluate(
    network: Network,
    loader: DataLoader[Batch],
    evaluator: SampleEvaluator,
    *,
    precision: Precision = "fp32",
    console: Console | None = None,
) -> Scores:
    """Score a network on all images of a loader; every process returns the scores of the whole split.

    A thread measures a batch while the network computes the next one. Without worker processes, another
    thread reads ahead. Scores are the same.

    The console gets the evaluator's notes, e.g. how many images have no labelled pixel.

    Raises:
        PredictionError: a prediction cannot be scored (`SampleEvaluator.check`).
        NothingLabelledError: a task has no labelled pixel in the whole split.
    """
    network.eval()
    batches = ahead(loader) if loader.num_workers == 0 else loader
    with Behind() as measuring:
        for batch in _shown(batches, len(loader), console):
            predictions = predict_batch(network, evaluator.tasks, batch, precision, stay=evaluator.on_device)
            measuring(evaluator.process, predictions, batch)
    return scores_of(evaluator, loader, console)


def scores_of(
    evaluator: SampleEvaluator, loader: DataLoader[Batch], console: Console | None = None
) -> Scores:
    """Scores of what an evaluator has measured; all processes meet here, and each has those of the split.

    Args:
        evaluator: has seen all images of this process.
        loader: of the whole split.
        console: gets the evaluator's notes.

    Raises:
        RuntimeError: the processes together did not see every image once.
        NothingLabelledError: a task has no labelled pixel in the whole split.
    """
    evaluator.evaluate(len(loader.dataset))  # type: ignore[arg-type]
    if console is not None and is_main_process():
        for note in evaluator.notes():
            console.print(note, markup=False, soft_wrap=True)
    return evaluator.scores()


def _shown(batches: Iterable[Batch], count: int, console: Console | None) -> Iterable[Batch]:
    if console is None or not is_main_process():
        return batches
    return track(batches, "evaluate", count, console=console, transient=True)


def evaluate_files(
    files: PredictionFiles,
    loader: DataLoader[Batch],
    evaluator: SampleEvaluator,
    console: Console | None = None,
) -> Scores:
    """Score predictions on disk against the labels of a loader; no network is involved.

    Raises:
        PredictionFilesError: names every file that is missing, extra, unreadable, of another size, or that
            holds what cannot be scored, before any score.
        NothingLabelledError: a task has no labelled pixel in the whole split.
    """
    dataset: DenseDataset = loader.dataset  # type: ignore[assignment]
    files.require(dataset.ids)
    problems: list[str] = []
    for task in files.tasks:
        try:
            files.encoding(task)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise PredictionFilesError("\n  ".join(["the predictions cannot be scored:", *problems]))
    for batch in _shown(loader, len(loader), console):
        for index, image in enumerate(batch.ids):
            labels = labels_of(batch, index)
            pairs = {}
            for task in files.tasks:
                if task.name in labels:
                    label = labels[task.name]
                    size = (int(label.shape[-2]), int(label.shape[-1]))
                    try:
                        prediction = files.read(task, image, size)
                        where = str(files.path(task, image))
                        evaluator.check(task.name, prediction, label, where, BAD_FILE)
                        pairs[task.name] = (prediction, label)
                    except ValueError as error:
                        problems.append(str(error))
            if not problems:  # otherwise there will be no scores
                try:
                    evaluator.add(image, pairs)
                except ValueError as error:
                    problems.append(str(error))
    if problems:
        raise PredictionFilesError("\n  ".join(["the predictions cannot be scored:", *problems]))
    return scores_of(evaluator, loader, console)


def measure_constant(
    protocol: Protocol, train_set: DenseDataset, loader: DataLoader[Batch], settings: EvaluationSettings
) -> SampleEvaluator:
    """Measure the best constant map per task, fitted on `settings.constant_predictor` training images.

    A network that does not clearly beat the scores of this row has learned nothing. `scores_of` gives them;
    processes need not meet before.
    """
    predictors = {task.name: ConstantPredictor(task) for task in protocol.tasks}
    count = min(settings.constant_predictor, len(train_set))
    for position in range(count):
        sample = train_set[position * len(train_set) // count]
        for name, label in sample.labels.items():
            predictors[name].update(label)
    evaluator = SampleEvaluator(protocol.tasks, settings.metric_options, settings.workers)
    for batch in loader:
        height, width = batch.label_size
        prediction = {name: item.prediction((height, width)) for name, item in predictors.items()}
        evaluator.process([prediction] * len(batch), batch)
    evaluator.settle()
    evaluator.close()
    return evaluator


def write_panels(
    network: Network,
    protocol: Protocol,
    dataset: DenseDataset,
    folder: Path,
    count: int,
    precision: Precision = "fp32",
) -> list[Path]:
    """Draw the predictions for `count` evenly spaced images beside their labels, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    network.eval()
    for position in range(min(count, len(dataset))):
        sample = dataset[position * len(dataset) // min(count, len(dataset))]
        batch = Batch(
            image=sample.image[None],
            labels={name: label[None] for name, label in sample.labels.items()},
            present={name: torch.ones(1, dtype=torch.bool) for name in sample.labels},
            meta=[sample.meta],
        )
        prediction = predict_batch(network, protocol.tasks, batch, precision)[0]
        path = folder / f"{_file_name(sample.meta.id)}.png"
        write_picture(path, panel(sample.image, prediction, protocol.tasks, labels=sample.labels))
        written.append(path)
    return written


def _file_name(identity: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in identity)


def headline_keys(protocol: Protocol) -> Sequence[str]:
    """`task/score` keys of the headline scores, in the protocol's order."""
    return [f"{task.name}/{task.headline}" for task in protocol.tasks]
