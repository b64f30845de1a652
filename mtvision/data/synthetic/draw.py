"""Random choices that never change between versions: all come from one stream of uniform doubles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Vector = tuple[float, float, float]

_BLOCK = 1024


class Draw:
    """Choices from a generator, using nothing but its uniform doubles in [0, 1).

    NumPy may change how it makes normal or bounded integer variates; the Philox doubles are fixed. The angle
    functions of the C library differ between platforms in the last bit, hence `turn` rounds.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._block: list[float] = []

    def random(self) -> float:
        """A double in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """A double in [low, high)."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.random() < probability

    def sign(self) -> float:
        """1 or -1."""
        return 1.0 if self.random() < 0.5 else -1.0

    def choice(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[int(self.random() * len(items))]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """One of the names, with probabilities proportional to the weights."""
        left = self.random() * sum(weights.values())
        for name, weight in weights.items():
            left -= weight
            if left < 0:
                return name
        return next(reversed(list(weights)))


def turn(angle: float) -> tuple[float, float]:
    """Cosine and sine of an angle in radians, rounded so that all platforms agree."""
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def unit(vector: Vector) -> Vector:
    """The vector at length 1."""
    x, y, z = vector
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def cross(a: Vector, b: Vector) -> Vector:
    """Cross product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def from_hsv(hue: float, saturation: float, value: float) -> Vector:
    """RGB in 0..1 from hue, saturation and value in 0..1."""
    sector = (hue % 1.0) * 6
    part = sector - int(sector)
    low, down, up = (
        value * (1 - saturation),
        value * (1 - saturation * part),
        value * (1 - saturation * (1 - part)),
    )
    return (
        (value, up, low),
        (down, value, low),
        (low, value, up),
        (low, down, value),
        (up, low, value),
        (value, low, down),
    )[int(sector) % 6]
