"""What the files of a set contain: counted file by file, and additive."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.data.maps.files import Storage

LISTED = 16
"""A set of at most so many different values is described by listing them."""
KEPT = 1024
"""Pixels of a file that are kept as they are."""
NEAR = 0.1
"""Values within this share of the range of an extreme count as that extreme."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was found in files that store numbers alike, without the pixels that the options call invalid.

    Args:
        storage: how they store numbers.
        example: the file with the largest number.
        files: their number.
        channels: numbers of channels that occur.
        pixels: numbers that were counted.
        low: smallest.
        high: largest.
        above: smallest but one.
        below: largest but one.
        at_low: how many are the smallest.
        at_high: how many are the largest.
        values: those that occur if there are at most 16, else None.
        whole: whether none has a fraction.
        binary: files that hold 0 and 1 and nothing else, with more than a few pixels of 1.
        both: files that hold 1 and 255.
        negative: files of lengths of which none is above 0 and some are below it.
        sample: pixels spread over the files, float64 (n, C).
    """

    storage: Storage
    example: Path
    files: int
    channels: frozenset[int]
    pixels: int = 0
    low: float = np.inf
    high: float = -np.inf
    above: float = np.inf
    below: float = -np.inf
    at_low: int = 0
    at_high: int = 0
    values: tuple[float, ...] | None = ()
    whole: bool = True
    binary: tuple[Path, ...] = ()
    both: int = 0
    negative: int = 0
    sample: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 1)))

    def __add__(self, other: Evidence) -> Evidence:
        lows, highs = (self.low, self.above, other.low, other.above), (self.high, self.below, other.high)
        low, high = min(lows), max(*highs, other.below)
        listed = None
        if self.values is not None and other.values is not None:
            union = tuple(sorted({*self.values, *other.values}))
            listed = union if len(union) <= LISTED else None
        alike = self.sample.shape[1] == other.sample.shape[1]
        more = [item.sample for item in (self, other) if alike or item is self]
        return replace(
            self,
            example=other.example if other.high > self.high else self.example,
            files=self.files + other.files,
            channels=self.channels | other.channels,
            pixels=self.pixels + other.pixels,
            low=low,
            high=high,
            above=min((value for value in lows if value > low), default=np.inf),
            below=max((value for value in (*highs, other.below) if value < high), default=-np.inf),
            at_low=sum(item.at_low for item in (self, other) if item.low == low),
            at_high=sum(item.at_high for item in (self, other) if item.high == high),
            values=listed,
            whole=self.whole and other.whole,
            binary=self.binary + other.binary,
            both=self.both + other.both,
            negative=self.negative + other.negative,
            sample=np.concatenate(more),
        )

    @property
    def extreme(self) -> float:
        """Share of the sample near 0 or near the top of the range that the values use."""
        top = range_of(self.high)
        near = (self.sample <= NEAR * top) | (self.sample >= (1 - NEAR) * top)
        return float(near.mean()) if near.size else 1.0

    @property
    def median(self) -> float:
        """Of the sample; NaN where nothing was counted."""
        return float(np.median(self.sample)) if self.sample.size else np.nan

    def holding(self) -> str:
        """`holding 0 and 1`, or `holding 3..201`."""
        if not self.pixels:
            return "holding no value"
        if self.values is None or len(self.values) > 6:
            return f"holding {self.low:g}..{self.high:g}"
        names = [f"{value:g}" for value in self.values]
        return "holding " + " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def __str__(self) -> str:
        return f"{self.storage} {self.holding()}"


def range_of(high: float) -> int:
    """The smallest usual range 0..1, 0..255, 0..65535 with a value; beyond that the value itself."""
    return next((top for top in (1, 255, 65535) if high <= top), int(min(high, 2**62)))


def measure(
    path: Path, storage: Storage, values: NDArray[Any], missing: NDArray[np.bool_] | None = None
) -> Evidence:
    """Evidence of one file.

    Args:
        path: the file, for messages.
        storage: how it stores numbers.
        values: its numbers (H, W, C).
        missing: pixels (H, W) that count as invalid; NaN and infinity are left out anyway.
    """
    empty = Evidence(storage, path, 1, frozenset({values.shape[2]}), sample=np.empty((0, values.shape[2])))
    rows = values.reshape(-1, values.shape[2])
    kept = None if missing is None else ~missing.ravel()
    if values.dtype.kind == "f":
        finite = np.isfinite(rows).all(axis=1)
        kept = finite if kept is None else kept & finite
    if kept is not None and not kept.all():
        rows = rows[kept]
    if not rows.size:
        return empty
    flat = rows.ravel()
    listed, present, counts = _levels(flat)
    places = np.linspace(0, len(rows) - 1, min(KEPT, len(rows))).astype(np.int64)
    return replace(
        empty,
        pixels=int(flat.size),
        low=float(present[0]),
        high=float(present[-1]),
        above=float(present[1]) if len(present) > 1 else np.inf,
        below=float(present[-2]) if len(present) > 1 else -np.inf,
        at_low=int(counts[0]),
        at_high=int(counts[-1]),
        values=listed,
        whole=flat.dtype.kind != "f" or bool((np.rint(flat) == flat).all()),
        binary=(path,) if listed == (0.0, 1.0) and int(counts[-1]) * 1000 > flat.size else (),
        both=int(listed is not None and {1.0, 255.0} <= set(listed)),
        sample=rows[places].astype(np.float64),
    )


def _levels(flat: NDArray[Any]) -> tuple[tuple[float, ...] | None, NDArray[Any], NDArray[Any]]:
    """The values if there are few, and the two smallest and two largest with counts (all, where cheap)."""
    low, high = flat.min(), flat.max()
    if flat.dtype.kind in "iu" and int(high) - int(low) < 2**16:
        # wraps around in 16 bits, where differences of 8 bits do not fit into their own type
        counts = np.bincount(flat.astype(np.uint16) - np.uint16(int(low) % 2**16))
        found = np.flatnonzero(counts)
        present, counts = found.astype(np.float64) + float(low), counts[found]
    elif flat.dtype.kind == "b" or len(np.unique(flat[:: max(flat.size // 4096, 1)])) <= LISTED:
        present, counts = np.unique(flat, return_counts=True)
    else:
        inner = flat[(flat > low) & (flat < high)]
        ends = [low, inner.min(), inner.max(), high] if inner.size else [low, high]
        present = np.asarray(ends)
        return None, present, np.array([np.count_nonzero(flat == value) for value in present])
    listed = tuple(float(value) for value in present) if len(present) <= LISTED else None
    return listed, present, counts
