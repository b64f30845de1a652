"""Render a scene: the image and all label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.data.synthetic import labels
from mtvision.data.synthetic.intersect import View, cast
from mtvision.data.synthetic.scene import SKY, Scene
from mtvision.data.synthetic.shade import shade
from mtvision.data.synthetic.surface import add_facades, find_hits


@dataclass(frozen=True, slots=True)
class Rendering:
    """An image with exact labels.

    Args:
        image: uint8 (H, W, 3), RGB.
        semseg: uint8 (H, W), ids of `SYNTHETIC_CLASSES`; every pixel has one.
        depth: float32 (H, W), metres along the optical axis (z-depth, not distance); NaN in the sky.
        normals: float32 (H, W, 3), unit vectors in camera space: x to the right, y up, z towards the camera
            (out of the image). They point to the side of the camera. NaN in the sky.
        edge: float32 (H, W), 1 on boundaries of classes, instances and occlusions.
        saliency: uint8 (H, W), 1 on the one or two things that stand out.
        human_parts: uint8 (H, W), ids of `HUMAN_PARTS`; 255 throughout when no person is visible.
        instances: int32 (H, W), 0 = sky; surfaces (each wall, each pane) and objects have their own ids,
            which need not be consecutive.
    """

    image: NDArray[np.uint8]
    semseg: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    edge: NDArray[np.float32]
    saliency: NDArray[np.uint8]
    human_parts: NDArray[np.uint8]
    instances: NDArray[np.int32]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All maps by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """`size` as (H, W).

    Raises:
        ValueError: it is no pair of integers of at least 8.
    """
    if len(size) != 2 or any(int(side) != side or side < 8 for side in size):
        raise ValueError(f"synthetic scenes: size must be (height, width), at least 8 pixels, got {size!r}.")
    return int(size[0]), int(size[1])


def empty_rendering(size: tuple[int, int]) -> Rendering:
    """A rendering of zeros: the shapes and types of all maps."""
    return Rendering(
        image=np.zeros((*size, 3), dtype=np.uint8),
        semseg=np.zeros(size, dtype=np.uint8),
        depth=np.zeros(size, dtype=np.float32),
        normals=np.zeros((*size, 3), dtype=np.float32),
        edge=np.zeros(size, dtype=np.float32),
        saliency=np.zeros(size, dtype=np.uint8),
        human_parts=np.zeros(size, dtype=np.uint8),
        instances=np.zeros(size, dtype=np.int32),
    )


def render(scene: Scene, size: tuple[int, int]) -> Rendering:
    """Look at `scene` in (H, W) pixels.

    The horizontal field of view belongs to the camera, so every size with the same aspect ratio shows the
    same picture. A pixel's labels are those of the ray through its centre.

    Raises:
        ValueError: a side is smaller than 8 pixels.
    """
    height, width = check_size(size)
    view = View.of(scene.camera, (height, width))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach, owner = cast(scene, view)
        hits = find_hits(scene, view, reach, owner)
        add_facades(scene, hits)
        image = shade(scene, view, hits)
    semseg = np.full((height, width), SKY, dtype=np.uint8)
    instance = np.zeros((height, width), dtype=np.int32)
    part = np.zeros((height, width), dtype=np.uint8)
    normals = np.full((height * width, 3), np.nan, dtype=np.float32)
    semseg.reshape(-1)[hits.pixel] = hits.label
    instance.reshape(-1)[hits.pixel] = hits.instance
    part.reshape(-1)[hits.pixel] = scene.part.take(hits.owner)
    right, up, forward = view.basis
    for channel, (axis, sign) in enumerate(((right, 1.0), (up, 1.0), (forward, -1.0))):
        turned = sum(hits.normal[k] * axis[k] for k in range(3))
        normals[hits.pixel, channel] = sign * np.asarray(turned)
    return Rendering(
        image=image,
        semseg=semseg,
        depth=np.where(np.isfinite(reach), reach, np.nan).astype(np.float32),
        normals=normals.reshape(height, width, 3),
        edge=labels.boundaries(semseg, instance, owner, reach),
        saliency=labels.salient(image, semseg, instance),
        human_parts=labels.human_parts(part),
        instances=instance,
    )
