"""A map over its image, pixel on pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.task import Task
from mtvision.visualize.colours import BACKGROUND, Colour, Picture, colourise, to_array, unlabelled

TINT: Colour = (255, 64, 32)
"""Where a probability is high."""
_PROBABILITIES = ("sigmoid", "foreground")


def overlay(image: Picture, task: Task, values: Any, *, opacity: float = 0.55) -> Picture:
    """Draw a prediction over its image.

    Args:
        image: RGB (H, W, 3), uint8.
        task: decides the colours.
        values: its map, of the image's height and width.
        opacity: of the map, 0..1. Probabilities are a red tint, as opaque as they are high. Where there is no
            label or instance, and in a class called "background", the image stays as it is.

    Returns:
        RGB (H, W, 3).

    Raises:
        ValueError: a map of another size than the image.
    """
    array = to_array(values)
    if array.shape[-2:] != image.shape[:2]:
        raise ValueError(f"{task.name}: the map is {array.shape}, the image {image.shape[:2]}.")
    colours, weight = _coloured(task, array)
    weight = np.where(unlabelled(task, array), 0, weight * opacity)[..., None]
    mixed = image * (1 - weight) + colours * weight
    return np.ascontiguousarray(np.round(mixed), dtype=np.uint8)


def _coloured(task: Task, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Colours (H, W, 3) and their weights (H, W) in 0..1."""
    if task.activation in _PROBABILITIES and array.size == array.shape[-1] * array.shape[-2]:
        probability = np.clip(np.nan_to_num(array.reshape(array.shape[-2:])), 0, 1)
        return np.full((*probability.shape, 3), TINT, dtype=np.uint8), probability
    colours = colourise(task, array)
    return colours, (colours != np.array(BACKGROUND)).any(axis=2).astype(np.float32)
