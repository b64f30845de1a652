"""Confidence of a network in the true label of an image: one number in 0..1 per image and task."""

from __future__ import annotations

import torch
from torch import Tensor

from mtvision.core.prediction import to_prediction
from mtvision.core.task import IGNORE, Task


def true_confidence(task: Task, logits: Tensor, label: Tensor) -> Tensor:
    """Confidence of every image of a batch in its label.

    Data maps (Swayamdipta et al., EMNLP 2020; STG-MTL, Sherif et al., 2023) are defined for one class per
    image. What takes its place for pixel maps is our choice:

        class maps             mean over labelled pixels of the probability of the true class
        boundaries (sigmoid)   mean of y·p + (1 − y)·(1 − p)
        other values           exp(−Σ |z − d| / Σ |d − d̄|), sums over labelled pixels and channels

    d̄ is the image's mean per channel. The value 1 is exact, and 1/e is that of the best constant guess. It is
    the same for every unit and origin of the values.

    Args:
        task: says how logits are read.
        logits: (B, out_channels, H, W), at the label's resolution.
        label: of the batch, as in `Batch.labels`.

    Returns:
        float64 (B,) on the CPU, NaN for images without a labelled pixel.

    Raises:
        ValueError: no confidence is defined for instances.
    """
    if task.label == "instances":
        raise ValueError(
            f"{task.name}: no confidence is defined for instance maps; leave the task out of data maps."
        )
    if task.label == "classes":
        valid, sums = _classes(logits.float(), label)
    elif task.activation == "sigmoid":
        valid = ~label.isnan()
        sums = _agreement(to_prediction(task, logits), torch.where(valid, label, 0.0))
    else:
        return _values(task, logits, label).cpu()
    pixels = valid.flatten(1).sum(dim=1)
    total = torch.where(valid, sums, 0.0).double().flatten(1).sum(dim=1)
    return torch.where(pixels > 0, total / pixels, torch.nan).cpu()


def _classes(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    valid = label != IGNORE
    truth = torch.where(valid, label, 0)
    if logits.shape[1] == 1:  # one logit for two classes
        return valid, _agreement(logits.sigmoid()[:, 0], truth.to(logits.dtype))
    return valid, logits.softmax(dim=1).gather(1, truth[:, None])[:, 0]


def _agreement(probability: Tensor, truth: Tensor) -> Tensor:
    return truth * probability + (1 - truth) * (1 - probability)


def _values(task: Task, logits: Tensor, label: Tensor) -> Tensor:
    valid = ~label.isnan()
    known = torch.where(valid, label, 0.0).double()
    prediction = torch.where(valid, to_prediction(task, logits), 0.0).double()
    count = valid.flatten(2).sum(dim=2)
    mean = known.flatten(2).sum(dim=2) / count.clamp(min=1)
    spread = torch.where(valid, (known - mean[..., None, None]).abs(), 0.0).flatten(1).sum(dim=1)
    error = (prediction - known).abs().flatten(1).sum(dim=1)
    result = torch.exp(-error / spread.clamp(min=1e-12))
    return torch.where(count.sum(dim=1) > 0, result, torch.nan)
