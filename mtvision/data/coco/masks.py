"""Masks of COCO annotations: polygons and run-length encoding (RLE), checked before native code reads them.

pycocotools crashes on coordinates that are not finite or too large. Where counts are too short, it fills the
mask with whatever the memory holds. So all values are checked first, and RLE is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from mtvision.data.coco.fields import is_number
from mtvision.data.coco.mistakes import (
    LIMIT,
    MASK_SIZE,
    NO_MASK,
    NO_PIXEL,
    OUTSIDE,
    POLYGON,
    RLE,
    SHARES,
    Mistake,
    shown,
)
from mtvision.data.coco.records import Limits


def mask_of(segmentation: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (H, W) of a segmentation in which `find_mistake` and `find_sum_mistakes` found nothing."""
    if isinstance(segmentation, list):
        polygons = rle.merge(rle.frPyObjects(segmentation, *shape))
        return np.asarray(rle.decode([polygons])[..., 0], dtype=bool)
    counts = segmentation["counts"]
    runs = unpack([counts])[0] if isinstance(counts, str) else np.asarray(counts, dtype=np.int64)
    pixels = np.repeat(np.arange(runs.size) % 2 == 1, runs)
    return np.asarray(pixels.reshape(shape[::-1]).T)  # columns after one another


def find_mistake(segmentation: Any, shape: tuple[int, int], limits: Limits) -> Mistake | None:
    """The first mistake of a segmentation, apart from the sum of compressed counts.

    Args:
        segmentation: polygons or RLE, as in the JSON file.
        shape: height and width of its image.
        limits: of points and coordinates.
    """
    if isinstance(segmentation, list) and segmentation:
        return _find_in_polygons(segmentation, shape, limits)
    if isinstance(segmentation, dict):
        return _find_in_rle(segmentation, shape)
    kind = NO_MASK if segmentation in (None, [], "") else POLYGON
    return Mistake(kind, ".segmentation", f"is {shown(segmentation)}; expected a list of polygons, or RLE")


def odd_mask(segmentation: Any) -> Mistake | None:
    """What is odd about polygons or plain counts that `find_mistake` accepts: they cover no pixel."""
    if isinstance(segmentation, list):
        flat = all(
            any(min(points[start::2]) == max(points[start::2]) for start in (0, 1)) for points in segmentation
        )
        return Mistake(NO_PIXEL, ".segmentation", "has only polygons without area") if flat else None
    counts = segmentation["counts"]
    if isinstance(counts, list) and not sum(counts[1::2]):
        return Mistake(NO_PIXEL, ".segmentation.counts", "covers 0 pixels")
    return None


def _doubtful(values: Sequence[Any]) -> bool:
    """Whether some value may be no number; a quick look that a sum of 2^53 or more alarms too."""
    try:
        return not (set(map(type, values)) <= {int, float} and abs(sum(values)) < 2**53)
    except OverflowError:  # an integer that is too large for a sum of floats
        return True


def _find_in_polygons(polygons: list[Any], shape: tuple[int, int], limits: Limits) -> Mistake | None:
    total = 0
    for position, polygon in enumerate(polygons):
        where = f".segmentation[{position}]"
        if type(polygon) is not list:
            return Mistake(POLYGON, where, f"is {shown(polygon)}; expected a list of numbers within the list")
        if len(polygon) < 6 or len(polygon) % 2:
            text = f"has {len(polygon)} numbers; expected an even number, at least 6"
            return Mistake(POLYGON, where, text)
        total += len(polygon) // 2
        if total > limits.points:
            return Mistake(LIMIT, ".segmentation", f"has over {limits.points:g} points (limit 'points')")
        if _doubtful(polygon):
            wrong = next((index for index, item in enumerate(polygon) if not is_number(item)), None)
            if wrong is not None:
                text = f"is {shown(polygon[wrong])}; expected a finite number"
                return Mistake(POLYGON, f"{where}[{wrong}]", text)
        if min(polygon) >= 0 and max(polygon) <= 1 and min(shape) > 2:
            text = f"has coordinates up to {max(polygon):g} in an image of {shape[1]} x {shape[0]} pixels"
            return Mistake(SHARES, where, text)
        for name, side, values in (("x", shape[1], polygon[::2]), ("y", shape[0], polygon[1::2])):
            low, high, beyond = min(values), max(values), max(10, limits.outside * side)
            if low < -beyond or high > side + beyond or high < 0 or low > side:
                text = f"reaches from {name} = {low:g} to {high:g}; expected 0 to {side}"
                return Mistake(OUTSIDE, where, text)
    if total * max(shape) > limits.outline and _length(polygons) > limits.outline:
        text = f"is an outline of over {limits.outline:g} pixels (limit 'outline')"
        return Mistake(LIMIT, ".segmentation", text)
    return None


def _length(polygons: Sequence[list[float]]) -> float:
    """Steps of all outlines, as native code counts them before it scales by 5."""
    closed = [np.reshape([*polygon, *polygon[:2]], (-1, 2)) for polygon in polygons]
    return float(sum(np.abs(np.diff(points, axis=0)).max(axis=1).sum() for points in closed))


def _find_in_rle(code: Mapping[str, Any], shape: tuple[int, int]) -> Mistake | None:
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(map(is_number, size)):
        return Mistake(RLE, ".segmentation.size", f"is {shown(size)}; expected [height, width]")
    if tuple(size) != shape:
        swapped = " (height and width are exchanged)" if tuple(size[::-1]) == shape else ""
        text = f"is {size[0]}x{size[1]}, its image {shape[0]}x{shape[1]} (height x width){swapped}"
        return Mistake(MASK_SIZE, ".segmentation.size", text)
    where, pixels = ".segmentation.counts", shape[0] * shape[1]
    if isinstance(counts, str):
        if len(counts) > 7 * (pixels + 1) or not _COMPRESSED.fullmatch(counts):
            return Mistake(RLE, where, f"is {shown(counts)}; expected a compressed string of pycocotools")
        return None
    if not isinstance(counts, list) or len(counts) > 2 * pixels + 2:
        return Mistake(RLE, where, f"is {shown(counts)}; expected a list of counts, or a string")
    if not counts or _doubtful(counts) or set(map(type, counts)) != {int} or min(counts) < 0:
        for position, count in enumerate(counts):
            if not is_number(count) or count < 0 or count != int(count):
                return Mistake(RLE, f"{where}[{position}]", f"is {shown(count)}; expected a count of pixels")
    return sum_mistake(int(sum(counts)), shape)


def sum_mistake(total: int, shape: tuple[int, int]) -> Mistake | None:
    """The mistake of counts that do not fill the image."""
    pixels = shape[0] * shape[1]
    if total == pixels:
        return None
    text = f"covers {total} pixels; expected {shape[0]} x {shape[1]} = {pixels}"
    return Mistake(RLE, ".segmentation.counts", text)


_COMPRESSED = re.compile(r"(?:[P-o]{0,6}+[0-O])++")
"""Numbers of up to seven characters with five bits each; all but a number's last character are P..o."""
_BATCH = 50_000


def find_sum_mistakes(codes: Sequence[tuple[str, tuple[int, int]]]) -> list[tuple[int, Mistake]]:
    """Compressed strings whose counts are negative or do not fill their image, as (position, mistake).

    Args:
        codes: string and image shape (H, W) of each; `find_mistake` found nothing in them.
    """
    found = []
    for start, stop in pairwise(_batches([len(text) for text, _ in codes])):
        counts, first = unpack([text for text, _ in codes[start:stop]])
        sums, smallest = np.add.reduceat(counts, first), np.minimum.reduceat(counts, first)
        for position, total, low in zip(range(start, stop), sums.tolist(), smallest.tolist(), strict=True):
            mistake = sum_mistake(total, codes[position][1])
            if low < 0:
                mistake = Mistake(RLE, ".segmentation.counts", f"holds the count {low}; expected 0 or more")
            if mistake is not None:
                found.append((position, mistake))
    return found


def _batches(lengths: Sequence[int]) -> list[int]:
    """Positions at which batches of about `_BATCH` characters begin, and the end."""
    limits, held = [0], 0
    for position, length in enumerate(lengths):
        if held > _BATCH:
            limits.append(position)
            held = 0
        held += length
    return [*limits, len(lengths)] if lengths else [0]


def unpack(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of compressed strings, one string after another, and the position of each one's first count.

    Each character holds five bits of a number, lowest first. The first three counts of a string are stored as
    they are, each further one as its difference from the count two before it.

    Args:
        texts: strings that `find_mistake` accepts.
    """
    code = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8) - np.uint8(48)
    ends = np.flatnonzero(code < 32)
    begins = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - begins + 1
    counts = (code[begins] & 31).astype(np.int64)
    for place in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        counts[longer] += (code[begins[longer] + place] & 31).astype(np.int64) << (5 * place)
    negative = np.flatnonzero(code[ends] & 16)  # the highest bit is the sign
    counts[negative] -= np.int64(1) << (5 * lengths[negative])
    until = np.searchsorted(ends, np.cumsum([len(text) for text in texts]))
    first = np.concatenate(([0], until[:-1]))
    for start, stop in zip(first.tolist(), until.tolist(), strict=True):
        for chain in (counts[start + 1 : stop : 2], counts[start + 2 : stop : 2]):
            np.cumsum(chain, out=chain)
    return counts, first
