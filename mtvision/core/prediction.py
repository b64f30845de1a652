"""From logits to the map that metrics, pictures and files hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.task import Activation, Task

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "argmax": lambda logits: logits.argmax(dim=1),
    "identity": lambda logits: logits,
    "positive": lambda logits: logits.clamp(min=0),
    "unit": lambda logits: F.normalize(logits, dim=1),
    "sigmoid": torch.sigmoid,
    "foreground": lambda logits: logits.softmax(dim=1)[:, 1:2],
}


def to_prediction(task: Task, logits: Tensor) -> Tensor:
    """Turn logits (B, out_channels, H, W) into a batch of predictions; the input is left as it is.

    Returns:
        `argmax`: int64 class ids (B, H, W). `positive`: values clamped at 0. `unit`: vectors of length 1.
        `sigmoid`: probabilities (B, 1, H, W). `foreground`: softmax probability of class 1 (B, 1, H, W).
        All real-valued results are float32.

    Raises:
        ValueError: `logits` does not have the task's number of channels.
    """
    if logits.ndim != 4 or logits.shape[1] != task.out_channels:
        raise ValueError(
            f"{task.name}: logits have shape {tuple(logits.shape)}, expected (B, {task.out_channels}, H, W)."
        )
    return _ACTIVATIONS[task.activation](logits.float())
