"""Protocol family B: rotation and scaling in a fixed frame, then a resize that ignores the aspect ratio.

After the released code of the survey of Vandenhende et al. (TPAMI 2021, arXiv 2004.13379) and ASTMT (CVPR
2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mtvision.core.registry import TRANSFORMS
from mtvision.core.sample import RawSample
from mtvision.core.task import Task
from mtvision.core.values import Rate
from mtvision.data.transforms.frame import (
    Array,
    Size,
    as_float,
    change,
    cv_array,
    like,
    require_size,
    resize_nearest,
    shared_size,
    zoom_values,
)


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class ScaleNRotate:
    """Rotate and zoom about the centre; the frame keeps its size.

    Image and normals are interpolated cubically, other labels take the nearest pixel. Depth is divided by the
    zoom, normals' x and y turn by the angle. Pixels that come in from outside are 0, that is class 0, edge 0,
    depth 0 (then "no reading"): copied from the published code, where they are not ignored.

    Args:
        rotation: the angle is uniform in [-rotation, rotation) degrees, counter-clockwise; 0 = none.
        scale: (low, high) of a uniform zoom.
        scales: zooms to choose from instead.
        y_down: sign of the turn of normals: the published rule fits a y axis that points down, as this is;
            False for y up.
    """

    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    scales: tuple[Rate, ...] = ()
    y_down: bool = True

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The turned and zoomed sample."""
        height, width = shared_size(sample, "ScaleNRotate")
        angle = float(rng.uniform(-self.rotation, self.rotation)) if self.rotation else 0.0
        if self.scales:
            zoom = float(self.scales[int(rng.integers(len(self.scales)))])
        else:
            zoom = float(rng.uniform(*self.scale))
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)

        def warped(array: Array, interpolation: int) -> Array:
            result = cv2.warpAffine(array, matrix, (width, height), flags=interpolation)
            return like(np.asarray(result), array)

        def moved(label: Array, task: Task) -> Array:
            if task.geometry == "direction":
                turned = turn(_zero_where_missing(label), angle, y_down=self.y_down)
                return warped(turned, cv2.INTER_CUBIC)
            return zoom_values(warped(cv_array(label), cv2.INTER_NEAREST), task, zoom)

        return change(sample, warped(as_float(sample.image), cv2.INTER_CUBIC), moved)


def turn(vectors: Array, angle: float, *, y_down: bool) -> Array:
    """Vectors (..., 3) after the image was turned by `angle` degrees counter-clockwise: x and y turn, z
    stays."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    if not y_down:
        sine = -sine
    matrix = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=np.float32)
    return vectors @ matrix  # row vectors: x' = x cos + y sin, y' = y cos - x sin


def _zero_where_missing(label: Array) -> Array:
    return np.where(np.isfinite(label), label, np.float32(0))


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class FixedResize:
    """Resize to (height, width) whatever the aspect ratio; values of depth stay.

    Image and normals are interpolated cubically, normals brought to unit length again, other labels take the
    nearest pixel. Normals without a value count as zero vectors in the interpolation; where nothing but those
    is mixed the result has no value.

    Args:
        size: (height, width).
        labels: False leaves the labels in their own resolution, for scores there (batch size 1).
    """

    size: Size
    labels: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", require_size(self.size, "FixedResize"))

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The resized sample."""

        def cubic(array: Array) -> Array:
            return np.asarray(cv2.resize(array, self.size[::-1], interpolation=cv2.INTER_CUBIC))

        def resized(label: Array, task: Task) -> Array:
            if not self.labels:
                return label
            if task.geometry != "direction":
                return resize_nearest(label, self.size)
            vectors = cubic(_zero_where_missing(label))
            length = np.sqrt((vectors**2).sum(axis=2, keepdims=True))
            unit = vectors / (length + np.finfo(np.float32).eps)
            return np.where(length == 0, np.float32(np.nan), unit)

        return change(sample, cubic(as_float(sample.image)), resized, content=self.size)
