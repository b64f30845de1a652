"""Turn logits into the prediction maps that metrics, pictures and files use."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from mtvision.core.instances import group_instances
from mtvision.core.task import Activation, Task

_ACTIVATIONS: dict[Activation, Callable[[Tensor, float], Tensor]] = {
    "argmax": lambda logits, _: logits.argmax(dim=1),
    "identity": lambda logits, _: logits,
    "positive": lambda logits, _: logits.clamp(min=0),
    "unit": lambda logits, _: F.normalize(logits, dim=1),
    "sigmoid": lambda logits, _: logits.sigmoid(),
    "foreground": lambda logits, _: logits.softmax(dim=1)[:, 1:2],
    "instances": group_instances,
}


def to_prediction(task: Task, logits: Tensor, zoom: float = 1.0) -> Tensor:
    """Turn logits (B, out_channels, H, W) into a batch of predictions; the input is left as it is.

    Args:
        task: says how.
        logits: of the network, at any resolution.
        zoom: how much larger these pixels are than those the network saw; lengths in pixels grow with it.

    Returns:
        `argmax`: int64 class ids (B, H, W). `positive`: values clamped at 0. `unit`: vectors of length 1.
        `sigmoid`: probabilities (B, 1, H, W). `foreground`: softmax probability of class 1 (B, 1, H, W).
        `instances`: ids and confidences (B, 2, H, W), see `mtvision.core.instances.group_instances`.
        All real-valued results are float32.

    Raises:
        ValueError: `logits` does not have the task's number of channels.
    """
    if logits.ndim != 4 or logits.shape[1] != task.out_channels:
        raise ValueError(
            f"{task.name}: logits have shape {tuple(logits.shape)}, expected (B, {task.out_channels}, H, W)."
        )
    return _ACTIVATIONS[task.activation](logits.float(), zoom)
