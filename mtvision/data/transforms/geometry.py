"""Scale, crop, flip and resize: image and all labels on one code path.

The random draws of a transform come from the sample's NumPy generator, in the order the published code makes
them with Python's `random`; distribution and order are the same, the stream is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE, Task
from mtvision.data.transforms.frame import (
    Array,
    Size,
    as_bytes,
    as_float,
    change,
    cv_array,
    like,
    require_size,
    resize_nearest,
    shared_size,
    zoom_values,
)


@dataclass(frozen=True, kw_only=True)
class RandomScale:
    """Enlarge or shrink by s, keeping the aspect ratio.

    s is uniform in [low, high], or one of `scales`. The new size is (int(H s), int(W s)). The image, in
    float32, is interpolated bilinearly; every label takes the nearest pixel, normals included. Depth is
    divided by s, disparity multiplied. Nothing happens at s = 1. (Protocol family A, after ATRC and InvPT.)
    """

    low: float = 0.5
    high: float = 2.0
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high or any(scale <= 0 for scale in self.scales):
            raise ValueError(
                f"RandomScale: scales must be positive and low <= high, got {self.low}, {self.high}, "
                f"{self.scales}."
            )

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The scaled sample."""
        if self.scales:
            scale = float(self.scales[int(rng.integers(len(self.scales)))])
        else:
            scale = float(rng.uniform(self.low, self.high))
        height, width = shared_size(sample, "RandomScale")
        if scale == 1:
            return sample
        size = (max(int(height * scale), 1), max(int(width * scale), 1))
        image = cv2.resize(as_float(sample.image), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)

        def scaled(label: Array, task: Task) -> Array:
            return zoom_values(resize_nearest(label, size), task, scale)

        return change(sample, np.asarray(image), scaled, content=size)


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Cut out a window of `size`; a side that is shorter than the window is kept whole.

    Up to ten locations are tested on the class map `by`: a location is taken when at least two classes remain
    and none covers `max_share` of the labelled pixels. The location drawn after the tenth failure is taken
    untested, as in the published code. Without that map there is no test (the released code of InvPT fails
    there). A frame that already has the size is left alone and draws nothing.

    Args:
        size: (height, width); None = the size of the image file, so that scaling and cropping keep it.
        max_share: 1 or more switches the test off.
        by: task whose label is tested.
    """

    size: Size | None = None
    max_share: float = 0.75
    by: str = "semseg"

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", require_size(self.size, "RandomCrop"))

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The cropped sample."""
        frame = shared_size(sample, "RandomCrop")
        size = self.size or sample.meta.original_size
        if frame == size:
            return sample
        window = _draw_window(frame, size, rng)
        tested = sample.labels.get(self.by)
        if tested is not None and self.max_share < 1:
            for _ in range(10):
                if _is_varied(tested[window], self.max_share):
                    break
                window = _draw_window(frame, size, rng)
        image = sample.image[window]
        return change(sample, image, lambda label, _: label[window], content=image.shape[:2])


def _draw_window(frame: Size, size: Size, rng: np.random.Generator) -> tuple[slice, slice]:
    top = int(rng.integers(max(frame[0] - size[0], 0), endpoint=True))
    left = int(rng.integers(max(frame[1] - size[1], 0), endpoint=True))
    return slice(top, top + size[0]), slice(left, left + size[1])


def _is_varied(labels: Array, max_share: float) -> bool:
    if labels.dtype == np.uint8:
        counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256]).ravel()
    else:
        counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    counts = np.delete(counts, IGNORE)
    return int((counts > 0).sum()) > 1 and float(counts.max()) / float(counts.sum()) < max_share


@dataclass(frozen=True, kw_only=True)
class RandomHorizontalFlip:
    """Mirror left and right with probability `p`; the x component of directions changes sign."""

    p: float = 0.5

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample, mirrored or not."""
        if rng.random() >= self.p:
            return sample
        return flip_horizontally(sample)


def flip_horizontally(sample: RawSample) -> RawSample:
    """The mirror image; twice is the identity."""

    def mirrored(array: Array) -> Array:
        return like(np.asarray(cv2.flip(cv_array(array), 1)), array)

    def flipped(label: Array, task: Task) -> Array:
        result = mirrored(label)  # a new array
        if task.geometry == "direction":
            result[..., 0] *= -1
        return result

    top, left, bottom, right = sample.meta.padding
    result = change(sample, mirrored(sample.image), flipped)
    return result.with_(meta=replace(sample.meta, padding=(top, right, bottom, left)))


@dataclass(frozen=True, kw_only=True)
class ResizeImage:
    """Resize the image alone to (height, width) with Pillow's bilinear filter, which smooths when shrinking.

    For Cityscapes as MTMamba reads it: 8-bit image, labels left in full resolution.
    """

    size: Size

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample with a resized image."""
        height, width = require_size(self.size, "ResizeImage")
        picture = Image.fromarray(as_bytes(sample.image))
        image = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        return change(sample, image, lambda label, _: label, content=(height, width))


@dataclass(frozen=True, kw_only=True)
class ResizeLabels:
    """Resize the labels alone to (height, width), nearest pixel; values (disparities) are not rescaled.

    For Cityscapes-3D as TaskPrompter reads it: image in full resolution.
    """

    size: Size

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample with resized labels."""
        size = require_size(self.size, "ResizeLabels")
        return change(sample, sample.image, lambda label, _: resize_nearest(label, size))
