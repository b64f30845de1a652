"""Thinning to one pixel, as MATLAB's `bwmorph(map, 'thin', inf)` does."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""x1 .. x8 of the rule: east, then counter-clockwise, as (row, column) offsets."""


def thin(boundaries: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove pixels in two alternating passes until nothing changes (Guo and Hall; Lam, Lee and Suen 1992).

    The result equals `skimage.morphology.thin`. That function visits every pixel of the map in every pass.
    This one visits boundary pixels that may still change, which makes a hundred thresholds per image
    affordable.

    Args:
        boundaries: (H, W); what lies outside counts as empty.
    """
    height, width = boundaries.shape
    padded = np.zeros((height + 2, width + 2), dtype=bool)
    padded[1:-1, 1:-1] = boundaries
    flat = padded.ravel()
    places = np.empty(flat.size, dtype=np.int32)
    steps = np.array([row * (width + 2) + column for row, column in _NEIGHBOURS])
    active = [np.flatnonzero(flat)] * 2
    while active[0].size or active[1].size:
        for number, removable in enumerate(_tables()):
            pixels = active[number]
            pixels = pixels[flat[pixels]]
            code = np.zeros(pixels.size, dtype=np.uint8)
            for bit, step in enumerate(steps):
                code |= flat[pixels + step].view(np.uint8) << bit
            removed = pixels[removable[code]]
            flat[removed] = False
            active[number] = pixels[:0]
            if removed.size:
                # Only neighbours of removed pixels can have become removable, in either pass.
                touched = (removed[:, None] + steps).ravel()
                touched = touched[flat[touched]]
                active = [_distinct(np.concatenate([pending, touched]), places) for pending in active]
    return padded[1:-1, 1:-1].copy()


def _distinct(pixels: NDArray[np.intp], places: NDArray[np.int32]) -> NDArray[np.intp]:
    """Each pixel once, in any order; `places` is room for a number per pixel of the map.

    Every pixel keeps its last place. That is faster than `np.unique`, which sorts.
    """
    order = np.arange(pixels.size, dtype=places.dtype)
    places[pixels] = order
    kept: NDArray[np.intp] = pixels[places[pixels] == order]
    return kept


@cache
def _tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each of the 256 neighbourhoods, whether the first and the second pass remove the centre."""
    codes = np.arange(256)
    x = {number: (codes >> (number - 1) & 1).astype(bool) for number in range(1, 9)} | {9: codes & 1 == 1}
    crossings = sum((~x[2 * i - 1] & (x[2 * i] | x[2 * i + 1])).astype(int) for i in range(1, 5))
    first = sum((x[2 * i - 1] | x[2 * i]).astype(int) for i in range(1, 5))
    second = sum((x[2 * i] | x[2 * i + 1]).astype(int) for i in range(1, 5))
    fewer = np.minimum(first, second)
    common = (crossings == 1) & (fewer >= 2) & (fewer <= 3)
    return common & ~((x[2] | x[3] | ~x[8]) & x[1]), common & ~((x[6] | x[7] | ~x[4]) & x[5])
