"""Outputs and losses that start at the scale of the data (`training.init_from_data`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mtvision.core.task import Task
from mtvision.engine.module import TrainingModule
from mtvision.losses.loss import Loss, labelled
from mtvision.metrics.statistics import ConstantPredictor
from mtvision.models.heads.output import output_layer
from mtvision.runtime.attempts import Attempts

PIXELS = 20_000
"""Labelled pixels of an image that are used at most, at even distances."""
UNIFORM = 0.01
"""Share of the probability that is dealt evenly, so that a class which the sample lacks can be learned."""
LOGITS = 6.0
"""Largest logit of a probability that is tried."""


@dataclass(frozen=True)
class Start:
    """Where the output of a task starts.

    Args:
        logits: one value per channel, everywhere in the image.
        loss: of these logits on the sampled labels, without deep supervision.
        scale: what the task's loss is divided by, and the last weights are multiplied by; 1 = they stay.
    """

    logits: tuple[float, ...]
    loss: float
    scale: float


def starts_of(
    module: TrainingModule, labels: Sequence[Mapping[str, Tensor]]
) -> tuple[dict[str, Start], list[str]]:
    """Starts of all tasks, and a line about each task that has none.

    Args:
        module: its losses choose between constants.
        labels: {task: label} of each sampled training image, untransformed.
    """
    found: dict[str, Start] = {}
    notes = []
    for task in module.tasks:
        maps = [entry[task.name] for entry in labels if task.name in entry]
        attempts = Attempts(quiet=True)  # a loss of one's own may need whole images
        start = attempts.run(task.name, partial(start_of, task, module.losses.losses[task.name], maps))
        if start is not None:
            found[task.name] = start
        else:
            why = attempts.lines or [f"{task.name}: no constant of its labels is known"]
            notes.append(f"{why[0]}; it starts as the network was built")
    return found, notes


def start_of(task: Task, loss: Loss, maps: Sequence[Tensor]) -> Start | None:
    """The constant logits with the smallest loss among those that statistics of the labels suggest.

    Args:
        task: whose labels are given.
        loss: of the task.
        maps: its labels.

    Returns:
        None without a labelled pixel, and for outputs that no constant suits, e.g. of instances.
    """
    label = _row_of_pixels(task, maps)
    if label is None:
        return None
    tried = [(_loss(loss, one, label), one) for one in _candidates(task, label)]
    tried = [(value, one) for value, one in tried if value == value]
    if not tried:
        return None
    least, logits = min(tried, key=lambda item: item[0])
    scale = least if _has_a_scale(task) and 0 < least < float("inf") else 1.0
    return Start(tuple(logits.tolist()), least, scale)


@torch.no_grad()
def apply_starts(module: TrainingModule, starts: Mapping[str, Start]) -> list[str]:
    """Set the last layers of all tasks and the scales of their losses; returns tasks that declare no layer.

    The bias becomes the constant, and weights are multiplied by the scale. Deep supervision starts alike.

    Args:
        module: with room for scales, see `TrainingModule`. It is changed: call this once.
        starts: the same on all processes.
    """
    without = []
    for name, start in starts.items():
        last = output_layer(module.network.heads[name])
        if last is None or last.bias is None:
            without.append(name)
        layers = [*([] if last is None else [last]), *module.network.decoder.output_layers(name)]
        for layer in layers:
            own = dict(layer.named_parameters(recurse=False))
            if "bias" in own and "weight" in own:  # an adapter may have replaced them
                own["bias"].copy_(torch.tensor(start.logits))
                own["weight"].mul_(start.scale)
    module.set_loss_scales({name: start.scale for name, start in starts.items()})
    return without


def _has_a_scale(task: Task) -> bool:
    """Whether labels are lengths or amounts, not directions or probabilities."""
    return task.label == "values" and task.geometry != "direction" and task.activation != "sigmoid"


def _row_of_pixels(task: Task, maps: Sequence[Tensor]) -> Tensor | None:
    """Labelled pixels of all maps as the label of one image of one row: (1, 1, N) or (1, C, 1, N)."""
    if task.label == "instances":
        return None
    rows = []
    for item in maps:
        planes = item[None] if item.ndim == 2 else item
        known = planes[:, labelled(planes).all(dim=0)]
        rows.append(known[:, :: max(known.shape[1] // PIXELS, 1)])
    row = torch.cat(rows, dim=1) if rows else torch.zeros(1, 0)
    if not row.shape[1]:
        return None
    return row[None, 0:1] if task.label == "classes" else row[None, :, None]


def _candidates(task: Task, label: Tensor) -> list[Tensor]:
    """Constant logits (out_channels,) to choose from; zeros are always among them."""
    found = [torch.zeros(task.out_channels)]
    if task.out_channels == 1 and (task.activation == "sigmoid" or task.label == "classes"):
        return [*found, *torch.linspace(-LOGITS, LOGITS, 49)[:, None]]
    if task.label == "classes" and task.out_channels == task.num_classes:
        counts = torch.bincount(label.flatten(), minlength=task.num_classes).double()
        share = counts / counts.sum() * (1 - UNIFORM) + UNIFORM / task.num_classes
        return [*found, share.log().float()]
    if task.out_channels != task.label_channels or task.label != "values":
        return []
    values = label[0, :, 0]
    if task.geometry == "direction":
        predictor = ConstantPredictor(task)
        predictor.update(label[0])
        return [*found, predictor.value]
    return [*found, values.median(dim=1).values, values.mean(dim=1)]


@torch.no_grad()
def _loss(loss: Loss, logits: Tensor, label: Tensor) -> float:
    size = (1, len(logits), label.shape[-2], label.shape[-1])
    return float(loss(logits[None, :, None, None].expand(size).double(), label))
