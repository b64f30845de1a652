"""Colour of surface points, for all materials at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mtvision.core.random import generator
from mtvision.data.synthetic.materials import Material

Single = NDArray[np.float32]

_SIDE = 256
_TEXEL = 0.03
"""Metres per texel of the smooth noise."""


@lru_cache(maxsize=1)
def noise_table() -> Single:
    """(256, 256) smooth noise in 0..1 that repeats without a seam: four octaves, fixed for ever."""
    random = generator(0, 0, 0).random
    total = np.zeros((_SIDE, _SIDE), dtype=np.float64)
    for cells, strength in ((16, 0.4), (32, 0.3), (64, 0.2), (128, 0.1)):
        grid = random((cells, cells))
        for axis in (0, 1):
            place = np.arange(_SIDE) * (cells / _SIDE)
            low = place.astype(np.int64)
            part = place - low
            part = part * part * (3 - 2 * part)
            part = part[:, None] if axis == 0 else part[None]
            grid = grid.take(low, axis) * (1 - part) + grid.take((low + 1) % cells, axis) * part
        total += strength * grid
    total = (total - total.min()) / (total.max() - total.min())
    return np.asarray(np.round(total, 6), dtype=np.float32)


def hashed(x: NDArray[np.int64], y: NDArray[np.int64], seed: NDArray[np.int64] | int) -> Single:
    """Values in [0, 1) that depend on integers only (32-bit integer hash)."""
    value = x.astype(np.uint32) * np.uint32(374761393) + y.astype(np.uint32) * np.uint32(668265263)
    value ^= np.atleast_1d(seed).astype(np.uint32) * np.uint32(2246822519)
    value = (value ^ (value >> np.uint32(13))) * np.uint32(1274126177)
    value ^= value >> np.uint32(16)
    return np.asarray((value >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24))


def lookup(u: Single, v: Single) -> Single:
    """Noise at texel coordinates, the nearest texel."""
    rows = np.floor(v).astype(np.int32) & (_SIDE - 1)
    columns = np.floor(u).astype(np.int32) & (_SIDE - 1)
    return noise_table().ravel().take(rows * _SIDE + columns)


def smooth(u: Single, v: Single) -> Single:
    """Noise at texel coordinates, interpolated."""
    table = noise_table().ravel()
    below, left = np.floor(v), np.floor(u)
    up, right = v - below, u - left
    rows = (below.astype(np.int32) & (_SIDE - 1)) * _SIDE
    next_rows = (rows + _SIDE) & (_SIDE * _SIDE - 1)
    columns = left.astype(np.int32) & (_SIDE - 1)
    next_columns = (columns + 1) & (_SIDE - 1)
    low = table.take(rows + columns) * (1 - right) + table.take(rows + next_columns) * right
    high = table.take(next_rows + columns) * (1 - right) + table.take(next_rows + next_columns) * right
    return np.asarray(low + up * (high - low), dtype=np.float32)


class Palette:
    """Materials as arrays, ready to be looked up per pixel."""

    def __init__(self, materials: list[Material]) -> None:
        numbers = [
            (
                *item.first, *item.second, *item.third, *item.cell, *item.angle, item.shift, item.parity,
                item.hashed, item.noise, item.line, item.grain, item.stretch, item.glow,
            )
            for item in materials
        ]  # fmt: skip
        self.table = np.array(numbers, dtype=np.float32).reshape(-1, 21).T.copy()
        self.table[0:9] *= self.table[0:9]  # displayed colours are square roots of light

    def albedo(
        self, surface: NDArray[np.int64], u: Single, v: Single, footprint: Single, seed: NDArray[np.int64]
    ) -> tuple[list[Single], Single]:
        """Reflectance of points.

        Args:
            surface: (P,) material of each point.
            u: (P,) metres along the surface.
            v: (P,) metres along the surface.
            footprint: (P,) metres that a pixel covers there; finer patterns fade to their mean.
            seed: (P,) varies noise and hashes between objects.

        Returns:
            Three (P,) channels of linear light in 0..1, and the glow (P,).
        """
        get = [row.take(surface) for row in self.table]
        width, height, cosine, sine, shift, parity, cells, noise, line, grain, stretch, glow = get[9:]
        along, across = cosine * u + sine * v, cosine * v - sine * u
        y = across / height
        row = np.floor(y)
        x = along / width + shift * row
        column = np.floor(x)
        i, j = row.astype(np.int64), column.astype(np.int64)
        finest = np.minimum(width, height)
        sharp = np.clip(1.25 - footprint / finest * 1.5, 0, 1)
        texel = np.float32(1 / _TEXEL)
        drift = (seed * 37 % 211).astype(np.float32)
        cloud = smooth(np.asarray(along / stretch * texel + drift), np.asarray(across * texel))
        rough = lookup(u * (4 * texel) + drift, v * (4 * texel))
        mix = parity * (((i + j) & 1) - 0.5) + cells * (hashed(i, j, seed) - 0.5)
        mix = 0.5 * (parity + cells) + mix * sharp + noise * np.clip(cloud * 2 - 0.5, 0, 1)
        mix = np.clip(mix, 0, 1)
        joint = ((x - column) < line) | ((y - row) < line)
        joint_part = joint * sharp * (line > 0)
        factor = 1 + grain * (rough - 0.5) * 2
        channels = []
        for channel in range(3):
            colour = get[channel] + mix * (get[3 + channel] - get[channel])
            colour += joint_part * (get[6 + channel] - colour)
            channels.append(colour * factor)
        return channels, glow
