"""From what a set contains to what its numbers mean: one rule for labels, predictions and tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtvision.core.task import IGNORE, Task
from mtvision.data.decode import DecodeError
from mtvision.data.maps.evidence import Evidence, range_of
from mtvision.data.maps.files import Storage
from mtvision.data.maps.options import MapOptions, kind_of

Meaning = Literal["ids", "mask", "share", "values", "shifted", "signed"]
SOFT = 0.95
"""A mask with intermediate values has at least this share of its pixels near its two levels."""
NEAR_UNIT = 0.1
"""A vector within this of length 1 is a unit vector."""
FAR = 100
"""Metres beyond which whole numbers, or the median, are another unit."""
APART = 8
"""Among few numbers, the largest stands apart if it is more than so many times the next one."""
BEYOND = 1e6
"""Metres that no choice of the unit explains: other checks find them."""
LONGEST_REAL = 2
"""Components of unit vectors, stored as real numbers, do not reach this."""
SENTINEL = 0.005
"""Share of the pixels from which one extreme value or colour is suspected to mean "no label"."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the numbers of files of one kind mean.

    Args:
        storage: of those files.
        meaning: `ids`. `mask`: 1 at the second of two levels or above `cut`, else 0. `share`: 0..1 after
            division. `values`: any after division. `shifted`: 2 v / divisor - 1. `signed`: v / divisor.
        divisor: of stored numbers.
        levels: of a mask the only numbers that may occur; of ids those that were found; empty = any.
        cut: of a mask: numbers above it are 1.
        found: what the files hold, for people.
        median: of stored distances; 0 = unknown.
    """

    storage: Storage
    meaning: Meaning
    divisor: float = 1.0
    levels: tuple[float, ...] = ()
    cut: float | None = None
    found: str = ""
    median: float = 0.0

    def statement(self, name: str = "1") -> str:
        """The meaning without what was found, e.g. `mask, 255 = edge` for the name `edge`."""
        if self.meaning == "mask" and self.cut is None:
            return f"mask, {self.levels[-1]:g} = {name}" if len(self.levels) > 1 else f"mask without {name}"
        if self.meaning == "mask":
            return f"mask, above {self.cut:g} = {name}"
        shown = "v" if self.divisor == 1 else f"v / {self.divisor:g}"
        return {
            "ids": "class ids",
            "share": f"{shown}, in 0..1",
            "values": shown,
            "shifted": f"2 {shown} - 1",
            "signed": shown,
        }[self.meaning]


class UndecidedError(DecodeError):
    """The content of files allows several meanings; the message names the option that settles it."""


def rule_of(task: Task, storage: Storage, evidence: Evidence | None, options: MapOptions) -> Rule:
    """What the numbers of files that are stored alike mean.

    Args:
        task: what they are maps of.
        storage: how they are stored.
        evidence: what they contain; None = nothing is known, then the options or the storage must do.
        options: what was said by hand.

    Raises:
        UndecidedError: the content allows several meanings, or contradicts the options.
    """
    return _RULES[kind_of(task)](task, storage, evidence, options)


def needs_evidence(task: Task, options: MapOptions) -> bool:
    """Whether the meaning depends on the content of the files."""
    kind = kind_of(task)
    settled = options.ids is not None or options.encoding == "ids"
    return options.encoding == "mask" or not (kind == "ids" or (kind == "binary" and settled))


def _ids(task: Task, storage: Storage, evidence: Evidence | None, options: MapOptions) -> Rule:
    if options.encoding == "mask":
        return _cut_mask(_seen(evidence, storage), options, task)
    if storage.lossy:
        where = f"{evidence.example}: " if evidence is not None else ""
        raise UndecidedError(
            f"{where}{task.name} labels must be stored without loss, found {storage}. JPEG changes ids; "
            "export the labels again as PNG."
        )
    return Rule(storage=storage, meaning="ids", found=str(evidence or storage))


def _binary(task: Task, storage: Storage, evidence: Evidence | None, options: MapOptions) -> Rule:
    if options.encoding is not None or options.ids is not None:
        return _ids(task, storage, evidence, options)
    seen = _seen(evidence, storage)
    levels = seen.values
    if levels in ((), (0.0,)):
        return Rule(storage=storage, meaning="mask", levels=(0.0,), found=str(seen))
    if storage.kind == "b" or (not storage.lossy and levels is not None and set(levels) <= {0, 1}):
        return Rule(storage=storage, meaning="ids", levels=levels or (), found=str(seen))
    if levels is not None and set(levels) <= {0, 1, IGNORE} and not storage.lossy:
        if 1 in levels and not seen.both:
            raise UndecidedError(
                f"{seen.example}: some of the {seen.files} files that were looked at hold 255 and no 1, "
                "others 1 and no 255. Store all files alike, or say encoding='ids' if 255 means \"no label\"."
            )
        if 1 in levels:
            return Rule(storage=storage, meaning="ids", found=f"{seen}, {IGNORE} = no label")
        raise UndecidedError(
            f"{seen.example}: holds 255 and no 1, as do all {seen.files} files of its kind that were looked "
            "at. If 255 is the foreground, say encoding='mask'; if it means \"no label\", say encoding='ids'."
        )
    if seen.low < 0:
        raise UndecidedError(
            f"{seen.example}: found {seen} of {task.name}. Map the numbers to class ids with ids=, or name "
            "those without label with ignore=."
        )
    far = levels is not None and len(levels) == 2 and levels[0] == 0 and levels[1] in (storage.top, 128, 254)
    if far and levels is not None and not storage.lossy:
        return Rule(storage=storage, meaning="mask", levels=levels, found=str(seen))
    # 0, 1 and 254 are ids with a mark for "no label"; a mask cut at half would call the 1 background
    marked = levels is not None and levels[:2] == (0, 1) and all(item > 200 for item in levels[2:])
    soft = (seen.high <= 1 and not seen.whole) or (range_of(seen.high) > 1 and _near_two_levels(seen))
    if soft and (storage.lossy or not marked):
        return _cut_mask(seen, options, task)
    raise UndecidedError(
        f"{seen.example}: found {seen}, expected two levels. Say encoding='mask' to cut gray values at half "
        "of their range, ids={number: class} for other numbers, or ignore= for those without label."
    )


def _share(task: Task, storage: Storage, evidence: Evidence | None, options: MapOptions) -> Rule:
    if options.encoding == "mask":
        return _cut_mask(_seen(evidence, storage), options, task)
    if options.scale is not None or options.encoding == "share":
        top = options.scale if options.scale is not None else float(storage.top)
        found = str(evidence or storage)
        return Rule(storage=storage, meaning="share", divisor=float(top), found=found)
    seen = _seen(evidence, storage)
    ways = "Say scale=, the number that means 1, or encoding='mask' if the files have two levels" + (
        "." if storage.is_array else ", or encoding='share' for the whole range of the format."
    )
    if seen.low < 0:
        raise UndecidedError(
            f"{seen.example}: {task.name} takes probabilities in 0..1, found {seen}. Apply the sigmoid to "
            "logits."
        )
    if storage.kind == "b":
        return Rule(storage=storage, meaning="share", found=str(seen))
    levels = seen.values
    if (
        not seen.pixels
        or not seen.high
        or (levels is not None and len(levels) == 2 and not levels[0] and not storage.lossy)
    ):
        return Rule(storage=storage, meaning="mask", levels=levels or (0.0,), found=str(seen))
    if storage.kind == "f" and seen.high <= 1:
        return Rule(storage=storage, meaning="share", found=str(seen))
    if seen.binary and seen.high > 1:
        odd = seen.binary[0] if 2 * len(seen.binary) <= seen.files else seen.example
        raise UndecidedError(
            f"{odd}: {len(seen.binary)} of {seen.files} files hold 0 and 1 and nothing else, others up "
            f"to {seen.high:g}. Store all files alike. {ways}"
        )
    if levels is not None and APART * seen.below < seen.high and not storage.lossy:
        raise UndecidedError(
            f"{seen.example}: found {seen}; {seen.high:g} stands apart. Say ignore={seen.high:g} if it means "
            f'"no label", or scale= with the number that means 1.'
        )
    narrow = not storage.is_array and storage.kind == "u" and storage.bits < 8
    top = storage.top if narrow else range_of(seen.high)
    if not seen.whole or not top / 2 <= seen.high <= top or top > 65535:
        raise UndecidedError(
            f"{seen.example}: the largest number in {seen.files} files is {seen.high:g}, so it is not known "
            f"what means 1 ({seen}). {ways}"
        )
    return Rule(storage=storage, meaning="share", divisor=float(top), found=str(seen))


def _values(task: Task, storage: Storage, evidence: Evidence | None, options: MapOptions) -> Rule:
    if options.scale is not None:
        found = str(evidence or storage)
        return Rule(storage=storage, meaning="values", divisor=float(options.scale), found=found)
    if storage.is_array or storage.kind not in "ub" or storage.bits > 16:
        return Rule(storage=storage, meaning="values", found=str(evidence or storage))
    seen = _seen(evidence, storage)
    least = 2**12 if storage.bits > 8 else 2
    if storage.bits >= 8 and 0 < seen.high < least:
        raise UndecidedError(
            f"{seen.example}: the largest number in {seen.files} files is {seen.high:g} of {storage.top}, so "
            f"it is not known what means 1 for {task.name}. Say scale=, the stored units per unit "
            f"({storage.top} for shares of the whole range)."
        )
    return Rule(storage=storage, meaning="values", divisor=float(storage.top), found=str(seen))


def _length(task: Task, storage: Storage, evidence: Evidence | None, options: MapOptions) -> Rule:
    where = f"{evidence.example}: " if evidence is not None else ""
    unit = {"m": "metre (1000 for millimetres)", "px": "pixel"}.get(task.unit, f"unit of {task.name}")
    if storage.lossy:
        raise UndecidedError(
            f"{where}{task.name} must be stored without loss, found {storage}. Take 16-bit PNG."
        )
    if options.scale is None and storage.kind != "f":
        what = f"{task.name} in a PNG" if storage.format == "PNG" else "found integers, which"
        need = "needs" if storage.format == "PNG" else "need"
        raise UndecidedError(f"{where}{what} {need} scale=, the units on disk per {unit}.")
    bits = 16 if options.bits is None else options.bits
    if storage.format == "PNG" and storage.bits != bits:
        raise UndecidedError(
            f"{where}the {task.name} file has {storage.bits} bits per channel, expected {bits}. Some program "
            f"rewrote it and the {task.name} is lost; take the original file again (or give bits= if it is "
            "right)."
        )
    if options.scale is None and evidence is not None and task.unit == "m" and evidence.pixels:
        far = FAR < evidence.median < BEYOND or (evidence.whole and FAR < evidence.high < BEYOND)
        if far:
            raise UndecidedError(
                f"{where}found {evidence}, median {evidence.median:g}, which are no metres. Say scale=, the "
                "units on disk per metre (1000 for millimetres, 1 if they are metres), or invalid= for "
                "values without meaning."
            )
    divisor = 1.0 if options.scale is None else float(options.scale)
    median = evidence.median if evidence is not None and evidence.pixels else 0.0
    found = str(evidence or storage)
    return Rule(storage=storage, meaning="values", divisor=divisor, found=found, median=median)


def _direction(task: Task, storage: Storage, evidence: Evidence | None, options: MapOptions) -> Rule:
    seen = _seen(evidence, storage)
    real = storage.kind == "f"
    top = 1.0 if real and seen.high <= 1 else float(range_of(seen.high))
    if not storage.is_array and storage.kind == "u":
        top = float(storage.top)
    found = str(seen)
    if options.encoding == "signed":
        divisor = 1.0 if real else float(storage.top)
        return Rule(storage=storage, meaning="signed", divisor=divisor, found=found)
    if options.encoding == "shifted":
        return Rule(storage=storage, meaning="shifted", divisor=top, found=found)
    if not real:
        if seen.low < 0 or (storage.is_array and not 128 <= seen.high <= 65535):
            raise UndecidedError(
                f"{seen.example}: found {seen} of {task.name}. Say encoding='signed' (0 is 0, the largest "
                "number of the format is 1) or 'shifted' (0 is -1)."
            )
        return Rule(storage=storage, meaning="shifted", divisor=top, found=found)
    if seen.low >= 0 and is_shifted(seen.sample, top):
        plain, shifted = _unit_share(seen.sample), _unit_share(2 * seen.sample / top - 1)
        raise UndecidedError(
            f"{seen.example}: found {seen}; {shifted:.0%} of the vectors have length 1 as 2 v / {top:g} - 1, "
            f"{plain:.0%} as they are. Say encoding='shifted', or 'signed' if they are stored as they are."
        )
    if max(seen.high, -seen.low) > LONGEST_REAL:
        raise UndecidedError(
            f"{seen.example}: found {seen}, expected unit vectors. Say encoding='shifted' if 0..{top:g} "
            "means -1..1, or encoding='signed' to take them as they are."
        )
    return Rule(storage=storage, meaning="signed", found=found)


def is_shifted(vectors: NDArray[np.float64], top: float) -> bool:
    """Whether vectors (n, 3) in 0..top have length 1 only as 2 v / top - 1."""
    return _unit_share(vectors) < 0.5 < _unit_share(2 * vectors / top - 1)


def _unit_share(vectors: NDArray[np.float64]) -> float:
    if not len(vectors):
        return 1.0
    return float((np.abs(np.linalg.norm(vectors, axis=1) - 1) < NEAR_UNIT).mean())


def _near_two_levels(seen: Evidence) -> bool:
    return seen.high >= 0.9 * range_of(seen.high) and seen.extreme >= SOFT


def _cut_mask(seen: Evidence, options: MapOptions, task: Task) -> Rule:
    """A mask by threshold: between two levels, else at half of the range.

    Raises:
        UndecidedError: the range is not known.
    """
    if options.scale is not None:
        cut = options.scale / 2
    elif seen.values is not None and len(seen.values) == 2:
        cut = sum(seen.values) / 2
    else:
        top = range_of(seen.high) if seen.high > 0 else seen.storage.top
        if seen.low < 0 or seen.high > 65535 or 0 < seen.high < top / 2:
            raise UndecidedError(
                f"{seen.example}: found {seen} in a mask of {task.name}, expected two levels or a range that "
                "ends near 1, 255 or 65535. Convert the files to 0 and 255."
            )
        cut = top / 2
    return Rule(storage=seen.storage, meaning="mask", cut=cut, found=str(seen))


def _seen(evidence: Evidence | None, storage: Storage) -> Evidence:
    if evidence is None:
        raise UndecidedError(
            f"found {storage}, as in none of the files that were looked at. Store all files alike, or say "
            "encoding= or scale=."
        )
    return evidence


_RULES: dict[str, Callable[[Task, Storage, Evidence | None, MapOptions], Rule]] = {
    "ids": _ids,
    "binary": _binary,
    "share": _share,
    "length": _length,
    "direction": _direction,
    "values": _values,
}
