"""Surface normals from a depth map, by fitting planes to inverse depth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Pinhole intrinsics in pixels; (centre_x, centre_y) counts from the centre of the top left pixel."""

    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float

    def mirrored(self, width: int) -> Camera:
        """The camera of the horizontally flipped picture."""
        return Camera(
            focal_x=self.focal_x,
            focal_y=self.focal_y,
            centre_x=width - 1 - self.centre_x,
            centre_y=self.centre_y,
        )


KINECT_NYU = Camera(focal_x=518.857901, focal_y=519.469611, centre_x=324.582449, centre_y=252.736166)
"""Colour camera of NYU Depth v2 (its toolbox's `camera_params.m`, where pixels count from 1)."""


def normals_from_depth(
    depth: NDArray[np.floating], camera: Camera, *, window: int = 21
) -> NDArray[np.float32]:
    """Unit normals towards the camera, axes x right, y up, z to the viewer; NaN where there is none.

    A plane n.P = c seen through a pinhole camera has an inverse depth 1/z = (n / c).(x, y, 1). It is linear
    in the normalised image coordinates x and y. The noise of a structured-light sensor is even in inverse
    depth. The plane through each pixel's surrounding is therefore the least-squares solution of a 3x3 system
    whose sums are box filters.

    Args:
        depth: metres, (H, W); 0, negative or not finite = none.
        camera: intrinsics of this resolution.
        window: side of the square surrounding in pixels, odd. 21 follows the published normals of NYU Depth
            v2 best.

    Returns:
        (H, W, 3).

    Raises:
        ValueError: `depth` is not a matrix or `window` is even or below 3.
    """
    if depth.ndim != 2 or window < 3 or window % 2 == 0:
        raise ValueError(
            f"normals_from_depth: depth has shape {depth.shape} (expected (H, W)) and window is "
            f"{window} (expected an odd number of at least 3)."
        )
    valid = np.isfinite(depth) & (depth > 0)
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=valid)
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]]
    basis = (
        (columns - camera.centre_x) / camera.focal_x,
        (rows - camera.centre_y) / camera.focal_y,
        np.ones(depth.shape),
    )
    weight = valid.astype(np.float64)
    matrix, vector = np.empty((*depth.shape, 3, 3)), np.empty((*depth.shape, 3))
    for i in range(3):
        vector[..., i] = _box(basis[i] * inverse, window)
        for j in range(i + 1):
            matrix[..., i, j] = matrix[..., j, i] = _box(basis[i] * basis[j] * weight, window)
    # a plane needs three points that are not in line; a handful of readings would fit noise
    enough = valid & (matrix[..., 2, 2] >= 2 * window) & (np.linalg.det(matrix) > 1e-12)
    normals = np.full((*depth.shape, 3), np.nan, dtype=np.float32)
    solution = np.linalg.solve(matrix[enough], vector[enough][..., None])[..., 0]
    length = np.linalg.norm(solution, axis=1, keepdims=True)
    # the solution points away from the camera with y down; towards the camera with y up, only x changes sign
    normals[enough] = solution / length * (-1.0, 1.0, 1.0)
    return normals


def _box(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    total = cv2.boxFilter(values, -1, (window, window), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(total)
