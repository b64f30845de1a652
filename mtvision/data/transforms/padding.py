"""Padding to a fixed size, and the rules by which pixels lose their label after cropping."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from mtvision.core.registry import TRANSFORMS
from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE, Task
from mtvision.data.transforms.frame import (
    Array,
    Size,
    change,
    no_label,
    require_size,
    shared_size,
)


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class PadImage:
    """Centre the frame in one of at least `size`: floor of half the difference above and to the left.

    The image is filled with `fill` (0 after normalisation = the mean colour), labels with "no label". Sides
    that are long enough stay; `meta.padding` says what was added and `meta.size` remains the content's.

    Args:
        size: (height, width); None = the size of the image file.
        fill: value of new image pixels.
    """

    size: Size | None = None
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", require_size(self.size, "PadImage"))

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The padded sample."""
        height, width = shared_size(sample, "PadImage")
        target = self.size or sample.meta.original_size
        rows, columns = max(target[0] - height, 0), max(target[1] - width, 0)
        if rows == 0 and columns == 0:
            return sample
        top, left = rows // 2, columns // 2
        added = (top, left, rows - top, columns - left)

        def padded(array: Array, fill: float) -> Array:
            channel_first = array.ndim == 3 and array.transpose(2, 0, 1).flags.c_contiguous
            size = (height + rows, width + columns)
            if channel_first:
                big = np.full((array.shape[2], *size), fill, dtype=array.dtype).transpose(1, 2, 0)
            else:
                big = np.full((*size, *array.shape[2:]), fill, dtype=array.dtype)
            big[top : top + height, left : left + width] = array
            return big

        result = change(
            sample, padded(sample.image, self.fill), lambda label, task: padded(label, no_label(task))
        )
        before = sample.meta.padding
        total = (before[0] + added[0], before[1] + added[1], before[2] + added[2], before[3] + added[3])
        return result.with_(meta=replace(sample.meta, padding=total))


def _is_zero(vectors: Array) -> Array:
    """Where all three components are zero, (H, W, 1)."""
    # reducing over three values is slow, and needed for few samples
    flat = np.ascontiguousarray(vectors).reshape(vectors.shape[0], -1)
    if cv2.countNonZero(flat) == flat.size:
        return np.zeros((*vectors.shape[:2], 1), dtype=bool)
    return np.asarray(~vectors.any(axis=2, keepdims=True))


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class AddIgnoreRegions:
    """Take the label from pixels that carry none in the published encodings.

    Directions (0, 0, 0) and depth 0 become NaN. A class map of a task in `empty` that holds only 0 and 255
    becomes 255 throughout. An image or a crop without any human part has no information about parts.
    """

    empty: tuple[str, ...] = ("human_parts",)

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample with fewer labelled pixels."""

        def reduced(label: Array, task: Task) -> Array:
            if task.geometry == "direction":
                missing = _is_zero(label)
            elif task.geometry == "depth":
                missing = label == 0
            elif task.name in self.empty and task.label == "classes":
                return label if ((label != 0) & (label != IGNORE)).any() else np.full_like(label, IGNORE)
            else:
                return label
            return np.where(missing, np.float32(np.nan), label) if missing.any() else label

        return change(sample, sample.image, reduced)
