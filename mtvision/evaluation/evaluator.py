"""Scores of a network on a split, the same for any batch size, order and number of processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from mtvision.core.naming import ReportedError, look_up, within
from mtvision.core.registry.workers import WorkerStart
from mtvision.core.sample import Batch, Meta
from mtvision.core.task import Task
from mtvision.metrics import Metric, build_metric
from mtvision.metrics.building import scored_task
from mtvision.metrics.checks import SICK_NETWORK, PredictionError
from mtvision.metrics.sums import Sums, total
from mtvision.runtime.launch import gather

Scores = dict[str, dict[str, float]]
"""{task: {score name: value}}, all digits."""


class NothingLabelledError(ReportedError, ValueError):
    """A task has no labelled pixel in the whole split, so that it has no score."""


def without_padding(label_or_prediction: Tensor, meta: Meta, image_size: Sequence[int]) -> Tensor:
    """Cut padding off a map (..., H, W); maps of another resolution than the image have none."""
    height, width = label_or_prediction.shape[-2:]
    if (height, width) != tuple(image_size):
        return label_or_prediction
    top, left, bottom, right = meta.padding
    return label_or_prediction[..., top : height - bottom, left : width - right]


def labels_of(batch: Batch, index: int) -> dict[str, Tensor]:
    """{task: label} of one sample on the CPU, without padding; tasks that it has no label for are absent."""
    image_size = batch.image.shape[-2:]
    return {
        name: without_padding(label[index].cpu(), batch.meta[index], image_size)
        for name, label in batch.labels.items()
        if bool(batch.present[name][index])
    }


class SampleEvaluator:
    """Collects one entry of sums per image, and adds them up in the order of the image ids.

    Args:
        tasks: what to score.
        options: {task: metric options that replace the protocol's}.
        workers: processes for metrics that take long per image (edges); 0 = in this process.
        save: called with the id and all predictions of every image, without padding.

    Attributes:
        tasks: what to score, with predictions as the metrics read them.
        metrics: {task: metric}.
        on_device: tasks whose predictions `process` takes from any device.
        per_image: {image id: {task: sums}} of the last `evaluate`, all processes together, sorted by id.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        options: Mapping[str, Mapping[str, Any]] | None = None,
        workers: int = 0,
        save: Callable[[str, Mapping[str, Tensor]], None] | None = None,
    ) -> None:
        for name in options or {}:
            look_up("task in evaluation options", name, {task.name: task for task in tasks})
        self.per_image: dict[str, dict[str, Sums]] = {}
        self.metrics: dict[str, Metric] = {
            task.name: build_metric(task, **(options or {}).get(task.name, {})) for task in tasks
        }
        self.tasks = tuple(scored_task(task, self.metrics[task.name]) for task in tasks)
        self.on_device = frozenset(name for name, metric in self.metrics.items() if metric.on_device)
        self._entries: dict[str, dict[str, Sums | Future[Sums]]] = {}
        self._workers = workers
        self._save = save
        self._pool: ProcessPoolExecutor | None = None

    def process(self, predictions: Sequence[Mapping[str, Tensor]], batch: Batch) -> None:
        """Measure a batch: predictions per sample against the batch's labels."""
        image_size = batch.image.shape[-2:]
        for index, prediction in enumerate(predictions):
            meta = batch.meta[index]
            maps = {
                task.name: without_padding(prediction[task.name], meta, image_size) for task in self.tasks
            }
            labels = labels_of(batch, index)
            pairs = {
                name: (item, labels[name].to(item.device)) for name, item in maps.items() if name in labels
            }
            self.add(meta.id, pairs)
            if self._save is not None:
                self._save(meta.id, {name: item.cpu() for name, item in maps.items()})

    def add(self, image: str, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Measure one image.

        Args:
            image: its id.
            pairs: {task: (prediction, label)} of the tasks it has labels for, without padding and batch axis.

        Raises:
            ValueError: the id was measured before, or a metric refuses shapes or values; names the image.
            PredictionError: a prediction cannot be scored.
        """
        if image in self._entries:
            raise ValueError(f"evaluation: image id '{image}' occurs twice; ids must be unique in a split.")
        scored = [task for task in self.tasks if task.name in pairs]
        for task in scored:
            self.check(task.name, *pairs[task.name], f"task '{task.name}', image '{image}'")
        with within(f"image '{image}'"):
            self._entries[image] = {task.name: self._measure(task, list(pairs[task.name])) for task in scored}

    def check(
        self, task: str, prediction: Tensor, label: Tensor, where: str, advice: str = SICK_NETWORK
    ) -> None:
        """Refuse a prediction that its metric cannot turn into a number.

        Args:
            task: name of the task.
            prediction: of one image, as `add` takes it.
            label: of the same image.
            where: begins the message.
            advice: ends it.

        Raises:
            PredictionError: names place, finding and expectation.
        """
        try:
            self.metrics[task].check_prediction(prediction, label)
        except PredictionError as error:
            raise error.at(where, advice) from None

    def _measure(self, task: Task, pair: list[Tensor]) -> Sums | Future[Sums]:
        metric = self.metrics[task.name]
        if self._workers == 0 or not metric.expensive:
            return metric.measure(*pair)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=get_context("spawn"), initializer=WorkerStart.here()
            )
        arrays = [item.cpu().contiguous().numpy() for item in pair]
        return self._pool.submit(_measure_arrays, metric, arrays)

    def settle(self) -> dict[str, dict[str, Sums]]:
        """Wait for the worker processes; returns the sums of this process. Other ranks have no part in it."""
        own = {
            image: {name: item.result() if isinstance(item, Future) else item for name, item in entry.items()}
            for image, entry in self._entries.items()
        }
        self._entries = {image: dict(entry) for image, entry in own.items()}
        return own

    def evaluate(self, size: int) -> dict[str, float]:
        """Scores over all processes as flat `task/score` keys; every process returns the same.

        Raises:
            RuntimeError: the processes together did not see exactly `size` images.
            NothingLabelledError: a task has no labelled pixel in any of them.
        """
        own = self.settle()
        self._entries = {}
        gathered: dict[str, dict[str, Sums]] = {}
        seen = 0
        for part in gather(own):
            gathered.update(part)
            seen += len(part)
        if seen != size or len(gathered) != size:
            raise RuntimeError(
                f"evaluation: {seen} images ({len(gathered)} ids) were measured, the split has {size}."
            )
        self.per_image = {image: gathered[image] for image in sorted(gathered)}
        self._require_labels()
        return flatten(self.scores())

    def scores(self) -> Scores:
        """Scores of the last `evaluate`, per task."""
        result: Scores = {}
        for task in self.tasks:
            parts = self._parts(task)
            if parts:
                result[task.name] = self.metrics[task.name].score(total(parts))
        return result

    def leave_one_out(self) -> Scores:
        """{task: {image: headline score of all other images}} of the last `evaluate`.

        Sums are integers or float64, so that taking one away leaves the sum of the others, to rounding.
        """
        result: Scores = {}
        for task in self.tasks:
            metric, entries = self.metrics[task.name], self.per_image.items()
            parts = {image: entry[task.name] for image, entry in entries if task.name in entry}
            if len(parts) < 2:
                continue
            whole = total(parts.values())
            result[task.name] = {
                image: metric.score({name: whole[name] - own[name] for name in whole})[task.headline]
                for image, own in parts.items()
            }
        return result

    def notes(self) -> list[str]:
        """What a reader of the last scores should know, as sentences: images without labels, remarks."""
        gaps, remarks = [], []
        for task in self.tasks:
            metric, parts = self.metrics[task.name], self._parts(task)
            empty = sum(not metric.has_label(sums) for sums in parts)
            absent = len(self.per_image) - len(parts)
            kinds = ((empty, "no labelled pixel"), (absent, "no label"))
            gaps += [f"{task.name} {count:,} ({reason})" for count, reason in kinds if count]
            remarks += [f"{task.name}: {text}" for text in metric.remarks(parts)]
        if gaps:
            remarks.insert(0, f"Not scored, of {len(self.per_image):,} images: {', '.join(gaps)}.")
        return remarks

    def _parts(self, task: Task) -> list[Sums]:
        """The sums of a task, of every image that has a label of it."""
        return [entry[task.name] for entry in self.per_image.values() if task.name in entry]

    def _require_labels(self) -> None:
        for task in self.tasks:
            parts = self._parts(task)
            if not any(self.metrics[task.name].has_label(sums) for sums in parts):
                raise NothingLabelledError(
                    f"evaluation: task '{task.name}' has no labelled pixel in {len(self.per_image):,} images "
                    f"({len(parts):,} have a label map), expected one at least. Look at the labels with "
                    "`mtvision check-dataset`, or leave the task out with `tasks=[…]`."
                )

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _measure_arrays(metric: Any, arrays: list[Any]) -> Sums:
    torch.set_num_threads(1)
    sums: Sums = metric.measure(*(torch.from_numpy(item) for item in arrays))
    return sums


def flatten(scores: Scores) -> dict[str, float]:
    """`{"depth": {"rmse": 0.5}}` to `{"depth/rmse": 0.5}`."""
    return {f"{task}/{name}": value for task, values in scores.items() for name, value in values.items()}
