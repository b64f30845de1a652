"""Predictions of the same few images at every evaluation during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from numpy.typing import NDArray
from torch import Tensor

from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.evaluation.evaluator import labels_of, without_padding
from mtvision.tracking.loggers import Loggers
from mtvision.tracking.run import Mask, PredictedImage
from mtvision.visualize.colours import colourise
from mtvision.visualize.drawing import resized
from mtvision.visualize.panels import denormalise, panel


class PredictionsHook(Hook):
    """Shows the trackers predictions that an evaluation has made anyway.

    Args:
        loggers: of the run; without any, nothing is kept.
        tasks: with predictions as the metrics read them.
        count: images; the first one of evenly spaced batches of this process.
    """

    priority = "LOW"  # after the scores

    def __init__(self, loggers: Loggers, tasks: Sequence[Task], count: int) -> None:
        self._loggers, self._tasks, self._count = loggers, tuple(tasks), count
        self._found: list[tuple[Batch, Mapping[str, Tensor]]] = []

    def before_val_epoch(self, runner: Any) -> None:
        """Forget an evaluation that was broken off."""
        self._found = []

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep the first image of a batch that is one of the chosen."""
        batches = len(runner.val_dataloader)
        chosen = {place * batches // self._count for place in range(self._count)} if self._count else set()
        if self._loggers.active and batch_idx in chosen:
            self._found.append((data_batch, outputs[0]))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write them, unless the evaluation was broken off."""
        found, self._found = self._found, []
        if metrics and found:
            draw = partial(predicted_image, tasks=self._tasks)
            self._loggers.predictions(lambda: [draw(batch, 0, maps) for batch, maps in found], runner.iter)


def predicted_image(
    batch: Batch, index: int, prediction: Mapping[str, Tensor], tasks: Sequence[Task]
) -> PredictedImage:
    """One sample of a batch with its predictions, without padding.

    Args:
        batch: images and labels.
        index: of the sample.
        prediction: {task: map} of the sample.
        tasks: those to show.
    """
    meta, size = batch.meta[index], batch.image.shape[-2:]
    image = denormalise(without_padding(batch.image[index].cpu(), meta, size))
    maps = {task.name: without_padding(prediction[task.name], meta, size) for task in tasks}
    labels = labels_of(batch, index)
    masks = {
        task.name: Mask(
            _indices(maps[task.name], image.shape[:2]),
            _indices(labels[task.name], image.shape[:2]) if task.name in labels else None,
            task.class_names or tuple(f"class {number}" for number in range(task.out_channels)),
        )
        for task in tasks
        if task.label == "classes" and not maps[task.name].is_floating_point()
    }
    pictures = {
        task.name: colourise(task, maps[task.name].numpy()) for task in tasks if task.name not in masks
    }
    shown = panel(image, maps, tasks, labels=labels, title=meta.id)
    return PredictedImage(meta.id, image, shown, masks, pictures)


def _indices(values: Tensor, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Class indices (H, W) of the size of the image, which overlays need."""
    found = values.squeeze().numpy().astype(np.uint8)
    same = found if found.shape == size else resized(found, (size[0], size[1]), smooth=False)
    return np.asarray(same, dtype=np.uint8)
