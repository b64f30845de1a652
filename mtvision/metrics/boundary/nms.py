"""Non-maximum suppression of boundary maps, as Dollár's edge toolbox does it.

Follows `edgesNms` of Dollár and Zitnick, "Fast Edge Detection Using Structured Forests" (PAMI 2015), in
NumPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

Map = NDArray[np.float32]

CONSERVATIVE = 1.01
"""A pixel survives a neighbour that is up to this factor stronger."""


def smooth(boundaries: Map, radius: int) -> Map:
    """Filter with the separable triangle [1 .. r+1 .. 1], mirrored at the border; radius 0 returns a copy."""
    ramp = np.arange(1, radius + 2, dtype=np.float64)
    kernel = np.concatenate([ramp, ramp[-2::-1]]) / ramp[-1] ** 2
    result = boundaries.astype(np.float32)
    for axis in (0, 1):
        result = convolve1d(result, kernel, axis=axis, mode="reflect", output=np.float32)
    return result


def orientation(boundaries: Map) -> Map:
    """Direction across the boundary at each pixel, in 0..pi from the x axis towards increasing rows."""
    smoothed = smooth(boundaries, 4)
    dy, dx = np.gradient(smoothed)
    dxx = np.gradient(dx, axis=1)
    dyy, dxy = np.gradient(dy)
    angle = np.arctan(dyy * np.sign(-dxy) / (dxx + np.float32(1e-5)))
    result: Map = np.mod(angle, np.float32(np.pi)).astype(np.float32)
    return result


def suppress(boundaries: Map, *, radius: int = 1, border: int = 5) -> Map:
    """Set pixels to 0 that are weaker than the map on either side, across their orientation.

    Args:
        boundaries: strengths (H, W), 0..1, at least 2 pixels high and wide.
        radius: compare with the bilinear samples at 1 .. radius pixels to both sides.
        border: the outermost this many pixels of every side are faded out linearly.

    Raises:
        ValueError: the map is not two-dimensional or thinner than 2 pixels.
    """
    if boundaries.ndim != 2 or min(boundaries.shape) < 2:
        raise ValueError(f"a boundary map must be (H, W) with H, W of at least 2, got {boundaries.shape}.")
    strength = boundaries.astype(np.float32)
    rows, columns = np.nonzero(strength)
    angle = orientation(strength)[rows, columns]
    across_x, across_y = np.cos(angle), np.sin(angle)
    raised = strength[rows, columns] * np.float32(CONSERVATIVE)
    keep = np.ones(rows.size, dtype=bool)
    for distance in (sign * step for step in range(1, radius + 1) for sign in (-1, 1)):
        keep &= raised >= _sample(strength, columns + distance * across_x, rows + distance * across_y)
    result = np.zeros_like(strength)
    result[rows[keep], columns[keep]] = strength[rows[keep], columns[keep]]
    return result * np.outer(*(_fade(length, border, boundaries.shape) for length in boundaries.shape))


def _sample(image: Map, x: NDArray[np.floating], y: NDArray[np.floating]) -> Map:
    """Bilinear interpolation at column x, row y, coordinates clamped to the map."""
    height, width = image.shape
    x = np.clip(x.astype(np.float32), 0, np.float32(width - 1.001))
    y = np.clip(y.astype(np.float32), 0, np.float32(height - 1.001))
    left, top = x.astype(np.intp), y.astype(np.intp)
    dx, dy = x - left.astype(np.float32), y - top.astype(np.float32)
    above = image[top, left] * (1 - dx) + image[top, left + 1] * dx
    below = image[top + 1, left] * (1 - dx) + image[top + 1, left + 1] * dx
    result: Map = above * (1 - dy) + below * dy
    return result


def _fade(length: int, border: int, shape: tuple[int, ...]) -> Map:
    """Factors 0, 1/border, 2/border ... 1 from both ends."""
    border = min(border, *(side // 2 for side in shape))
    position = np.arange(length)
    distance = np.minimum(position, length - 1 - position)
    result: Map = np.minimum(distance / max(border, 1), 1).astype(np.float32)
    return result if border else np.ones(length, dtype=np.float32)
