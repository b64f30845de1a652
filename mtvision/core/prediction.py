"""Turn logits into the prediction maps that metrics, pictures and files use."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mtvision.core.registry import ACTIVATIONS
from mtvision.core.task import Task

Activation = Callable[[Tensor, float], Tensor]
"""(logits (B, C, H, W), zoom) to predictions."""
_POINTWISE: set[Activation] = set()


def pointwise(activation: Activation) -> Activation:
    """Declare that an activation reads the logits of a pixel alone, whatever the zoom.

    Pictures that are predicted in tiles are then written tile by tile. Others get all logits at once.
    """
    _POINTWISE.add(activation)
    return activation


def is_pointwise(task: Task) -> bool:
    """Whether a prediction of the task at a pixel depends on the logits of that pixel alone."""
    return ACTIVATIONS[task.activation] in _POINTWISE


@ACTIVATIONS.register_module("argmax")
@pointwise
def _argmax(logits: Tensor, _: float) -> Tensor:
    """The class with the largest logit."""
    return logits.max(dim=1).indices  # the same as argmax, up to 15 times faster on the CPU


@ACTIVATIONS.register_module("identity")
@pointwise
def _identity(logits: Tensor, _: float) -> Tensor:
    """Logits as they are."""
    return logits


@ACTIVATIONS.register_module("positive")
@pointwise
def _positive(logits: Tensor, _: float) -> Tensor:
    """Values, those below 0 raised to 0."""
    return logits.clamp(min=0)


@ACTIVATIONS.register_module("unit")
@pointwise
def _unit(logits: Tensor, _: float) -> Tensor:
    """Vectors made unit length."""
    squares = logits.square().sum(dim=1, keepdim=True)  # norms over so short an axis are slow on CPUs
    return logits / squares.clamp(min=1e-24).sqrt()


@ACTIVATIONS.register_module("sigmoid")
@pointwise
def _sigmoid(logits: Tensor, _: float) -> Tensor:
    """The probability of one logit."""
    return logits.sigmoid()


@ACTIVATIONS.register_module("foreground")
@pointwise
def _foreground(logits: Tensor, _: float) -> Tensor:
    """The softmax probability of class 1."""
    return logits.softmax(dim=1)[:, 1:2]


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
        All real-valued results are float32. A function of your own is called with float32 logits and `zoom`;
        `@ACTIVATIONS.register_module("name")` makes it an `activation` of tasks.

    Raises:
        UnknownNameError: no activation has the task's name for it.
        ValueError: `logits` does not have the task's number of channels.
    """
    if logits.ndim != 4 or logits.shape[1] != task.out_channels:
        raise ValueError(
            f"{task.name}: logits have shape {tuple(logits.shape)}, expected (B, {task.out_channels}, H, W)."
        )
    prediction: Tensor = ACTIVATIONS[task.activation](logits.float(), zoom)
    return prediction
