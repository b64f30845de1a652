"""Helpers on the pixel frame that an image shares with its labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE, Task
from mtvision.core.values import Positive

Array = NDArray[Any]
Size = tuple[Positive, Positive]
Window = tuple[slice, slice]


def shared_size(sample: RawSample, who: str) -> Size:
    """(H, W) of the image and of every label.

    Raises:
        ValueError: a label has another size, so that a change of geometry is not defined.
    """
    size: Size = (sample.image.shape[0], sample.image.shape[1])
    for name, label in sample.labels.items():
        if label.shape[:2] != size:
            raise ValueError(
                f"{who}: the {name} label of '{sample.meta.id}' is {label.shape[0]}x{label.shape[1]} and "
                "the image "
                f"{size[0]}x{size[1]}; this transform needs one size. Put it before the transform that "
                "resizes only one of them."
            )
    return size


def change(
    sample: RawSample, image: Array, label: Callable[[Array, Task], Array], *, content: Size | None = None
) -> RawSample:
    """The sample with another image, `label(array, task)` for each label and `meta.size = content`."""
    labels = {name: label(array, sample.tasks[name]) for name, array in sample.labels.items()}
    meta = sample.meta if content is None else replace(sample.meta, size=content)
    return sample.with_(image=image, labels=labels, meta=meta)


def as_float(image: Array) -> NDArray[np.float32]:
    """The image in float32, 0..255."""
    return image if image.dtype == np.float32 else image.astype(np.float32)


def as_bytes(image: Array) -> NDArray[np.uint8]:
    """The image in uint8; fractions are cut off, as a cast does, values outside 0..255 are clipped."""
    return image if image.dtype == np.uint8 else np.clip(image, 0, 255).astype(np.uint8)


def cv_array(label: Array) -> Array:
    """A class map in a type that OpenCV can resize and warp (uint8 where the ids fit); values as they are."""
    if label.dtype in (np.uint8, np.uint16, np.int16, np.float32):
        return label
    if label.size and (label.min() < 0 or label.max() > np.iinfo(np.uint16).max):
        raise ValueError(f"class ids {label.min()}..{label.max()} do not fit into 0..65535.")
    return label.astype(np.uint8 if label.size == 0 or label.max() <= IGNORE else np.uint16)


def like(result: Array, original: Array) -> Array:
    """`result` with the channel axis of `original`, which OpenCV drops when there is one channel."""
    return result[..., None] if original.ndim == 3 and result.ndim == 2 else result


def resize_nearest(label: Array, size: Size) -> Array:
    """OpenCV's nearest-neighbour resize to (H, W)."""
    resized = cv2.resize(cv_array(label), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return like(np.asarray(resized), label)


def resize_nearest_window(label: Array, size: Size, window: Window) -> Array:
    """`resize_nearest(label, size)[window]`, made from the pixels that the window shows; a new array.

    Args:
        label: map (H, W) or (H, W, C).
        size: (height, width) of the whole frame after resizing.
        window: rows and columns of it; may reach beyond its end, as in any slice.
    """
    rows = _nearest_rows(label.shape[0], size[0])[window[0]]
    first = int(rows[0])
    band = resize_nearest(label[first : int(rows[-1]) + 1], (int(rows[-1]) + 1 - first, size[1]))
    return np.asarray(band[:, window[1]][rows - first])


def _nearest_rows(before: int, after: int) -> NDArray[np.intp]:
    """The row that OpenCV takes for each row of the result."""
    numbers = np.arange(before, dtype=np.float32)[:, None]
    return cv2.resize(numbers, (1, after), interpolation=cv2.INTER_NEAREST)[:, 0].astype(np.intp)


def zoom_values(label: Array, task: Task, factor: float) -> Array:
    """Values of a map after the frame was enlarged by `factor`: depth is divided, disparity multiplied."""
    if task.geometry == "depth":
        return label / np.float32(factor)
    if task.geometry == "disparity":
        return label * np.float32(factor)
    return label


def no_label(task: Task) -> float:
    """The value of a pixel without label: 255 in class maps, NaN in others."""
    return np.nan if task.label == "values" else IGNORE


def require_size(size: Any, who: str) -> Size:
    """(height, width) as integers.

    Raises:
        ValueError: it is not a pair of positive integers.
    """
    try:
        height, width = (int(item) for item in size)
    except (TypeError, ValueError):
        raise ValueError(f"{who}: size must be (height, width), got {size!r}.") from None
    if height < 1 or width < 1:
        raise ValueError(f"{who}: size must be positive, got {size!r}.")
    return height, width
