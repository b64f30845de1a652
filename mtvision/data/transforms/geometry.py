"""Scale, crop, flip and resize: image and all labels on one code path.

The random draws of a transform come from the sample's NumPy generator, in the order of the published code.
That code draws them with Python's `random`. Distribution and order are the same, the stream is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from mtvision.core.registry import TRANSFORMS
from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE, Task
from mtvision.core.values import Rate, Share
from mtvision.data.transforms.frame import (
    Array,
    Size,
    Window,
    as_bytes,
    as_float,
    change,
    cv_array,
    like,
    require_size,
    resize_nearest,
    resize_nearest_window,
    shared_size,
    zoom_values,
)


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class RandomScale:
    """Enlarge or shrink by s, keeping the aspect ratio.

    s is uniform in [low, high], or one of `scales`. The new size is (int(H s), int(W s)). The image, in
    float32, is interpolated bilinearly; every label takes the nearest pixel, normals included. Depth is
    divided by s, disparity multiplied. Nothing happens at s = 1. (Protocol family A, after ATRC and InvPT.)
    """

    low: Rate = 0.5
    high: Rate = 2.0
    scales: tuple[Rate, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high or any(scale <= 0 for scale in self.scales):
            raise ValueError(
                f"RandomScale: scales must be positive and low <= high, got {self.low}, {self.high}, "
                f"{self.scales}."
            )

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The scaled sample."""
        scale = self.draw(rng)
        frame = shared_size(sample, "RandomScale")
        if scale == 1:
            return sample
        size = _scaled_size(frame, scale)

        def scaled(label: Array, task: Task) -> Array:
            return zoom_values(resize_nearest(label, size), task, scale)

        return change(sample, _resize_image(sample.image, size), scaled, content=size)

    def draw(self, rng: np.random.Generator) -> float:
        """The next s."""
        if self.scales:
            return float(self.scales[int(rng.integers(len(self.scales)))])
        return float(rng.uniform(self.low, self.high))


def _scaled_size(frame: Size, scale: float) -> Size:
    return max(int(frame[0] * scale), 1), max(int(frame[1] * scale), 1)


def _resize_image(image: Array, size: Size) -> Array:
    return np.asarray(cv2.resize(as_float(image), size[::-1], interpolation=cv2.INTER_LINEAR))


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Cut out a window of `size`; a side that is shorter than the window is kept whole.

    Up to ten locations are tested on the class map `by`. A location is taken if at least two classes remain
    and none covers `max_share` of the labelled pixels. The location drawn after the tenth failure is taken
    untested, as in the published code. Without that map there is no test (the released code of InvPT fails
    there). A frame that already has the size is left alone and draws nothing.

    Args:
        size: (height, width); None = the size of the image file, so that scaling and cropping keep it.
        max_share: 1 or more switches the test off.
        by: task whose label is tested.
    """

    size: Size | None = None
    max_share: Share = 0.75
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
        window = self.draw(frame, size, sample.labels.get(self.by), rng)
        image = sample.image[window]
        return change(sample, image, lambda label, _: label[window], content=image.shape[:2])

    def draw(self, frame: Size, size: Size, tested: Array | None, rng: np.random.Generator) -> Window:
        """The next window of `size` in a frame of another size, for which `tested` is the class map."""
        window = _draw_window(frame, size, rng)
        if tested is None or self.max_share >= 1:
            return window
        for _ in range(10):
            if _is_varied(tested[window], self.max_share):
                break
            window = _draw_window(frame, size, rng)
        return window


def scale_and_crop(
    scale: RandomScale, crop: RandomCrop, sample: RawSample, rng: np.random.Generator
) -> RawSample:
    """`crop(scale(sample))`, bit for bit and with the same draws, but labels are made inside the window only.

    An enlarged frame of NYUD-v2 with all its labels takes up to 30 MB, and the crop discards most of it. (The
    image is scaled whole: OpenCV's bilinear weights depend on the whole frame.)
    """
    factor = scale.draw(rng)
    frame = shared_size(sample, "RandomScale")
    if factor == 1:
        return crop(sample, rng)
    scaled = _scaled_size(frame, factor)
    size = crop.size or sample.meta.original_size
    window: Window = (slice(0, scaled[0]), slice(0, scaled[1]))
    tested = sample.labels.get(crop.by)
    whole = None if tested is None else resize_nearest(tested, scaled)
    if scaled != size:
        window = crop.draw(scaled, size, whole, rng)

    def moved(label: Array, task: Task) -> Array:
        if label is tested and whole is not None:
            return zoom_values(whole[window], task, factor)
        return zoom_values(resize_nearest_window(label, scaled, window), task, factor)

    image = _resize_image(sample.image, scaled)[window]
    return change(sample, image, moved, content=image.shape[:2])


def _draw_window(frame: Size, size: Size, rng: np.random.Generator) -> Window:
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


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class RandomHorizontalFlip:
    """Mirror left and right with probability `p`; the x component of directions changes sign."""

    p: Share = 0.5

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


@TRANSFORMS.register_module()
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


@TRANSFORMS.register_module()
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
