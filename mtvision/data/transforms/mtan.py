"""Protocol family C: zoom by a crop that is resized back, as MTAN, Nash-MTL and FAMO do it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from mtvision.core.registry import TRANSFORMS
from mtvision.core.sample import RawSample
from mtvision.core.task import Task
from mtvision.core.values import Rate
from mtvision.data.transforms.frame import Array, Size, as_float, change, shared_size, zoom_values


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class RandomScaleCrop:
    """Cut out int(H / s) x int(W / s) at a uniform position and enlarge it to the full frame again.

    s is one of `scales`. Image and normals are interpolated bilinearly with aligned corners, class maps and
    depth take the nearest pixel; depth is divided by s, disparity multiplied. Normals are not brought to unit
    length again. Normals without a value enter the interpolation as zero vectors. A pixel whose three
    components sum to exactly zero afterwards has no value (the family's rule of validity).
    """

    scales: tuple[Rate, ...] = (1.0, 1.2, 1.5)

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The zoomed sample."""
        height, width = shared_size(sample, "RandomScaleCrop")
        scale = float(self.scales[int(rng.integers(len(self.scales)))])
        h, w = int(height / scale), int(width / scale)
        top = int(rng.integers(height - h, endpoint=True))
        left = int(rng.integers(width - w, endpoint=True))
        window = (slice(top, top + h), slice(left, left + w))

        def zoomed(label: Array, task: Task) -> Array:
            if task.geometry == "direction":
                vectors = np.where(np.isfinite(label), label, np.float32(0))
                result = _resize(vectors[window], (height, width), "bilinear")
                return np.where(result.sum(axis=2, keepdims=True) == 0, np.float32(np.nan), result)
            return zoom_values(_resize(label[window], (height, width), "nearest"), task, scale)

        image = _resize(as_float(sample.image)[window], (height, width), "bilinear")
        return change(sample, image, zoomed, content=(height, width))


def _resize(array: Array, size: Size, mode: str) -> Array:
    if array.shape[:2] == size:
        return array
    planes = array[..., None] if array.ndim == 2 else array
    tensor = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32))[None]
    aligned = True if mode == "bilinear" else None
    resized = F.interpolate(tensor, size=size, mode=mode, align_corners=aligned)[0].permute(1, 2, 0).numpy()
    return resized[..., 0].astype(array.dtype) if array.ndim == 2 else resized
