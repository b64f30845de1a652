"""Any albumentations pipeline on image and labels alike.

The pipeline runs once, on the image and on a map of pixel coordinates in place of a mask. For any spatial
transform, the transformed coordinates say where each new pixel came from, and which pixels have no source.
They also say how the frame was rotated and zoomed there. All labels follow from that.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.naming import look_up
from mtvision.core.registry import TRANSFORMS
from mtvision.core.sample import RawSample
from mtvision.core.task import Task
from mtvision.data.transforms.frame import Array, as_bytes, change, no_label, shared_size

# Their effect on a mask is not a movement of pixels, so a map of coordinates cannot follow it.
_NOT_SPATIAL = ("Morphological", "MaskDropout", "Mosaic", "OverlayElements")
_WINDOW = 15
"""Side of the window, in pixels, in which a bend that is not affine is taken for straight."""


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class AlbumentationsAdapter:
    """Applies albumentations transforms to the image and consistently to every label.

    Class maps and values take the nearest source pixel; pixels from nowhere are "no label". Under a zoom by s
    depth is divided by s and disparity multiplied (s is local: the root of the change of area). Directions
    turn with the image: x and y are multiplied by the local rotation or reflection, z stays. A shear or an
    unequal zoom contributes its rotational part only. An overlap of reflected borders counts as valid.

    Every draw comes from the sample's generator.

    Args:
        pipeline: albumentations transforms, or configs `{"type": name, **arguments}`; a `transforms` argument
            (`OneOf`, `Sequential`) may hold configs too.
        y_up: whether the y component of directions points up, as in this suite's own data sets.

    Raises:
        ValueError: a transform whose effect on labels is no movement of pixels, or the pipeline returns no
            uint8 RGB image. (Leave normalisation and tensors to the suite.)
        UnknownNameError: albumentations has no such transform.
    """

    pipeline: Sequence[Any]
    y_up: bool = True
    _compose: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        library = _albumentations()
        transforms = [_build(item, library) for item in self.pipeline]
        object.__setattr__(self, "_compose", library.Compose(transforms))

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample after the pipeline."""
        shape = shared_size(sample, "AlbumentationsAdapter")
        if sample.image.dtype != np.uint8 and not 0 <= sample.image.min() <= sample.image.max() <= 255:
            raise ValueError(
                "AlbumentationsAdapter: the image must be RGB in 0..255; put this transform before Normalize."
            )
        seed = int(rng.integers(2**63))
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        grid = _coordinates(shape)
        result = self._compose(image=np.ascontiguousarray(as_bytes(sample.image)), mask=grid)
        image = result["image"]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise ValueError(
                "AlbumentationsAdapter: the pipeline must return a uint8 RGB image; leave Normalize, "
                "ToFloat and "
                "ToTensorV2 out, the suite does that afterwards."
            )
        moved = np.asarray(result["mask"])
        if moved.shape == grid.shape and (moved == grid).all():
            return sample.with_(image=image)
        origin = _Origin.of(moved, shape)
        return change(
            sample,
            image,
            lambda label, task: origin.carry(label, task, y_up=self.y_up),
            content=image.shape[:2],
        )


@dataclass(frozen=True)
class _Origin:
    """Where the pixels of the new frame (h, w) lay in the old one.

    Args:
        rows, columns: integer coordinates (h, w), 0 where nothing is valid.
        valid: bool (h, w).
        slope: d(x, y of the old frame) / d(x, y of the new one), (2, 2) or (h, w, 2, 2).
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    valid: NDArray[np.bool_]
    slope: NDArray[np.float64]

    @classmethod
    def of(cls, moved: NDArray[np.float32], shape: tuple[int, int]) -> _Origin:
        """From the warped map of coordinates (h, w, 3): x, y and a 1, which is 0 in filled pixels."""
        x, y = np.rint(moved[..., 0]), np.rint(moved[..., 1])
        inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        valid = (moved[..., 2] == 1) & inside
        return cls(
            rows=np.where(valid, y, 0).astype(np.intp),
            columns=np.where(valid, x, 0).astype(np.intp),
            valid=valid,
            slope=_slope(moved[..., :2].astype(np.float64), valid),
        )

    def carry(self, label: Array, task: Task, *, y_up: bool) -> Array:
        """The label in the new frame."""
        values = label[self.rows, self.columns]
        if task.geometry in ("depth", "disparity"):
            shrink = np.sqrt(np.abs(np.linalg.det(self.slope)))  # 1 / zoom
            factor = shrink if task.geometry == "depth" else 1 / np.maximum(shrink, 1e-6)
            values = (values * np.reshape(factor, (*np.shape(factor), 1))).astype(np.float32)
        elif task.geometry == "direction":
            values = _turned(values, self.slope, y_up=y_up)
        values = np.array(values)
        values[~self.valid] = no_label(task)
        return values


def _coordinates(shape: tuple[int, int]) -> NDArray[np.float32]:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def _slope(origin: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Local linear map from new to old coordinates: one for the frame if that explains it, else a field."""
    y, x = np.nonzero(valid)
    if len(x) < 3:
        return np.eye(2)
    design = np.stack([x, y, np.ones(len(x))], axis=1)
    if np.linalg.matrix_rank(design[:: max(len(x) // 1000, 1)]) < 3:
        return np.eye(2)
    fit = np.linalg.solve(design.T @ design, design.T @ origin[valid])
    # Each resampling moves a nearest pixel by up to half a pixel; a bend that matters shows as more than
    # that.
    if np.abs(design @ fit - origin[valid]).max() <= 2.0:
        return np.asarray(fit[:2].T)
    return _local_slope(origin, valid)


def _local_slope(origin: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Least-squares planes through the old coordinates in a window around each new pixel, (h, w, 2, 2)."""
    y, x = np.mgrid[: valid.shape[0], : valid.shape[1]].astype(np.float64)
    weight = valid.astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        box = cv2.boxFilter(values * weight, -1, (_WINDOW, _WINDOW), borderType=cv2.BORDER_CONSTANT)
        return np.asarray(box) / count

    count = np.ones_like(weight)
    count = np.maximum(mean(np.ones_like(weight)), 1e-9)
    mean_x, mean_y = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    spread = xx * yy - xy**2
    known = spread > 1e-6
    spread = np.where(known, spread, 1.0)
    slope = np.zeros((*valid.shape, 2, 2))
    for axis in range(2):
        value = np.where(valid, origin[..., axis], 0.0)
        mean_value = mean(value)
        with_x, with_y = mean(value * x) - mean_value * mean_x, mean(value * y) - mean_value * mean_y
        slope[..., axis, 0] = (with_x * yy - with_y * xy) / spread
        slope[..., axis, 1] = (with_y * xx - with_x * xy) / spread
    slope[~known] = np.eye(2)
    return slope


def _turned(vectors: Array, slope: NDArray[np.float64], *, y_up: bool) -> Array:
    """Vectors (h, w, 3) turned by the rotation or reflection nearest to the inverse of `slope`."""
    (a, b), (c, d) = np.moveaxis(slope, (-2, -1), (0, 1))
    mirrored = np.sign(a * d - b * c)
    mirrored = np.where(mirrored == 0, 1.0, mirrored)
    # The orthogonal polar factor of a 2x2 matrix, in closed form; its transpose is that of the inverse.
    cosine, sine = a + mirrored * d, b - mirrored * c
    length = np.maximum(np.hypot(cosine, sine), 1e-12)
    cosine, sine = cosine / length, sine / length
    flip = -1.0 if y_up else 1.0
    x, y = vectors[..., 0], flip * vectors[..., 1]
    turned_x = cosine * x - mirrored * sine * y
    turned_y = sine * x + mirrored * cosine * y
    return np.stack([turned_x, flip * turned_y, vectors[..., 2]], axis=-1).astype(np.float32)


def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer version
    import albumentations

    if not hasattr(albumentations.Compose, "set_random_state"):
        raise ImportError(
            f"albumentations {albumentations.__version__} cannot be seeded per sample; install "
            "albumentations>=2.0."
        )
    return albumentations


def _build(item: Any, library: Any) -> Any:
    if isinstance(item, Mapping):
        if "type" not in item:
            raise TypeError(
                f"AlbumentationsAdapter: expected a dict with the key 'type', got {dict(item)!r}."
            )
        arguments = {key: value for key, value in item.items() if key != "type"}
        if "transforms" in arguments:
            arguments["transforms"] = [_build(inner, library) for inner in arguments["transforms"]]
        names = {name: getattr(library, name) for name in dir(library) if name[:1].isupper()}
        item = look_up("albumentations transform", item["type"], names)(**arguments)
    if isinstance(item, library.BaseCompose):
        for inner in item.transforms:
            _build(inner, library)
    if type(item).__name__ in _NOT_SPATIAL:
        raise ValueError(
            f"AlbumentationsAdapter: {type(item).__name__} does not move pixels of labels, so normals and "
            "depth cannot "
            f"follow it. Leave it out (also: {', '.join(_NOT_SPATIAL)})."
        )
    return item
