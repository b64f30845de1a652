"""What the numbers of a set of maps mean, and the values of the task that they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.task import IGNORE, Task
from mtvision.data.decode import DecodeError
from mtvision.data.maps.alike import ContradictionError, check_of, require_alike
from mtvision.data.maps.doubt import doubt_about
from mtvision.data.maps.evidence import Evidence, measure
from mtvision.data.maps.files import Storage, Stored, read_map
from mtvision.data.maps.fixed import NORMAL_OF_BYTE
from mtvision.data.maps.options import MapOptions, kind_of
from mtvision.data.maps.rules import Rule, UndecidedError, needs_evidence, rule_of

Array = NDArray[Any]
SAMPLED = 24
"""Files of each ending that are looked at."""
MORE = 256
"""Files that are looked at further where all before hold nothing but 0."""


@dataclass(frozen=True)
class Encoding:
    """One decision about a set of files.

    Args:
        task: what they are maps of.
        options: what was said by hand.
        rules: {how a file stores numbers: what they mean}.
        doubts: what looks wrong and could not be settled.
    """

    task: Task
    options: MapOptions = field(default_factory=MapOptions)
    rules: Mapping[Storage, Rule] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def read(self, path: Path) -> Array:
        """A file in the suite's convention; see `decode`."""
        return self.decode(read_map(path, _palette(self.task)), path)

    def decode(self, stored: Stored, path: Path) -> Array:
        """Numbers of a file in the suite's convention: ids (H, W), or float32 (H, W, C), NaN = no label.

        Args:
            stored: what `read_map` gives.
            path: for messages.

        Raises:
            DecodeError: the file contradicts the decision; names what was found and what to say or do.
        """
        values, missing = fitted(self.task, stored, self.options, path)
        rule = self._rule_for(stored.storage, values, missing, path)
        require_alike(self.task, rule, self.options, values, missing, path)
        if self.task.label != "values":
            return self._classes(rule, values[..., 0], missing, path)
        result = self._scaled(rule, values, missing, path)
        finite = np.isfinite(result)
        if not finite.all():
            result[~finite] = np.nan
        if missing is not None:
            result[missing] = np.nan
        if self.task.geometry in ("depth", "disparity"):
            result[result <= 0] = np.nan
        return self._turned(result) if self.task.geometry == "direction" else result

    def scaled(self, stored: Stored, path: Path) -> NDArray[np.float32]:
        """Real values (H, W, C) in the unit of the task, where no number means "no label".

        Raises:
            DecodeError: as `decode`.
        """
        values, _ = stored.fitting(path, self.task.name, self.task.label_channels)
        rule = self._rule_for(stored.storage, values, None, path)
        require_alike(self.task, rule, self.options, values, None, path)
        return self._scaled(rule, values, None, path)

    def require_alike(self, stored: Stored, path: Path) -> None:
        """Refuse a file whose numbers mean something else than those of the files that were looked at.

        Raises:
            ContradictionError: says what it holds and what the others hold.
        """
        rule = self.rules.get(stored.storage)
        if rule is not None:
            require_alike(self.task, rule, self.options, *fitted(self.task, stored, self.options, path), path)

    def rule(self, storage: Storage, path: Path) -> Rule:
        """What the numbers of files that are stored so mean.

        Raises:
            DecodeError: no such file was looked at, and its storage alone does not tell.
        """
        known = self.rules.get(storage)
        if known is not None:
            return known
        try:
            return rule_of(self.task, storage, None, self.options)
        except UndecidedError as error:
            if not self.rules:
                raise DecodeError(f"{path}: {error}") from None
            kinds = ", ".join(str(item) for item in self.rules)
            raise DecodeError(
                f"{path}: found {storage}, but the files that were looked at are {kinds}. Convert it to "
                "that, or say encoding= or scale= for all files."
            ) from None

    def _rule_for(
        self, storage: Storage, values: Array, missing: NDArray[np.bool_] | None, path: Path
    ) -> Rule:
        """As `rule`; if `encoding=` is given, a file of a rare storage is evidence enough of itself."""
        if storage in self.rules or self.options.encoding is None:
            return self.rule(storage, path)
        return rule_of(self.task, storage, measure(path, storage, values, missing), self.options)

    def describe(self) -> list[str]:
        """A line for each kind of file, e.g. `8-bit PNG holding 0 and 1 → mask, 1 = edge`."""
        return [f"{rule.found} → {rule.statement(self.task.name)}" for rule in self.rules.values()]

    def statement(self) -> str:
        """The decision without what was found, for fingerprints; empty where there was nothing to decide."""
        if not needs_evidence(self.task, self.options):
            return ""
        return "; ".join(f"{storage}: {rule.statement()}" for storage, rule in sorted(self.rules.items()))

    def _classes(self, rule: Rule, stored: Array, missing: NDArray[np.bool_] | None, path: Path) -> Array:
        if self.task.label == "instances":
            return _instances(stored, missing, path)
        if rule.meaning == "mask":
            ids = _mask(rule, stored, path, missing).astype(np.uint8)
            return ids if missing is None else np.where(missing, np.uint8(IGNORE), ids)
        if stored.dtype.kind == "b":
            stored = stored.astype(np.uint8)
        elif stored.dtype.kind == "f":
            stored, missing = _whole(stored, missing, path)
        if self.options.ids is not None:
            return self._mapped(stored, missing, path)
        if missing is None:
            return stored
        wide = stored if stored.dtype != np.int8 else stored.astype(np.int16)
        return np.where(missing, np.asarray(IGNORE, dtype=wide.dtype), wide)

    def _mapped(self, stored: Array, missing: NDArray[np.bool_] | None, path: Path) -> Array:
        result = np.full(stored.shape, IGNORE, dtype=np.int64)
        unknown = stored != IGNORE
        if missing is not None:
            unknown &= ~missing
        for source, target in (self.options.ids or {}).items():
            here = stored == int(source)
            result[here] = int(target)
            unknown &= ~here
        if unknown.any():
            raise DecodeError(
                f"{path}: id {int(stored[unknown][0])} has no entry in ids=; add it there or to ignore=."
            )
        return result

    def _scaled(
        self, rule: Rule, stored: Array, missing: NDArray[np.bool_] | None, path: Path
    ) -> NDArray[np.float32]:
        if rule.meaning == "mask":
            return _mask(rule, stored, path, missing).astype(np.float32)
        if rule.meaning == "shifted" and stored.dtype == np.uint8 and rule.divisor == 255:
            return np.asarray(cv2.LUT(np.ascontiguousarray(stored), NORMAL_OF_BYTE), dtype=np.float32)
        with np.errstate(over="ignore"):
            values: NDArray[np.float32] = stored.astype(np.float32) / np.float32(rule.divisor)
        if rule.meaning in ("share", "shifted") and (stored.dtype.kind == "f" or rule.divisor < _top(stored)):
            shown = values if missing is None else values[~missing]
            outside = shown[(shown < 0) | (shown > 1)]
            if outside.size:
                raise DecodeError(
                    f"{path}: holds {float(outside[0]) * rule.divisor:g}, but the files that were looked at "
                    f"are {rule.found}, which means {rule.statement()}. Look at the file, or say scale= or "
                    "invalid=."
                )
        if rule.meaning == "shifted":
            values = np.float32(2) * values - np.float32(1)
        return values

    def _turned(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Axes in the suite's order; NaN where a vector is zero or not finite."""
        axes = self.options.axes
        if axes is not None:
            planes = {
                axis.strip("-"): (-1 if axis.startswith("-") else 1) * vectors[..., channel]
                for channel, axis in enumerate(axes)
            }
            vectors = np.stack([planes["x"], planes["y"], planes["z"]], axis=-1).astype(np.float32)
        valid = vectors.any(axis=2, keepdims=True) & np.isfinite(vectors).all(axis=2, keepdims=True)
        return vectors if valid.all() else np.where(valid, vectors, np.float32(np.nan))


def decide(task: Task, evidence: Iterable[Evidence], options: MapOptions | None = None) -> Encoding:
    """What the numbers of a set mean, by its content and what was said by hand.

    Args:
        task: what the files are maps of.
        evidence: of each way in which files of the set store numbers.
        options: what was said by hand.

    Raises:
        UndecidedError: the content allows several meanings; names a file, and the option that settles it.
    """
    options = options or MapOptions()
    rules, doubts = {}, []
    for item in evidence:
        rule = rule_of(task, item.storage, item, options)
        rules[item.storage] = rule
        doubt = doubt_about(task, rule, item, options)
        doubts += [doubt] if doubt else []
    return Encoding(task, options, rules, tuple(doubts))


def decide_files(task: Task, paths: Iterable[Path], options: MapOptions | None = None) -> Encoding:
    """The decision about a set of files, from a sample that is spread over them.

    The sample depends on the order of the files alone, so every process decides alike. Unreadable files are
    left to the error of their own reading.

    Args:
        task: what they are maps of.
        paths: all files, in order.
        options: what was said by hand.

    Raises:
        UndecidedError: as `decide`.
        ContradictionError: one file of the sample means something else than the others.
    """
    options = options or MapOptions()
    if not needs_evidence(task, options):
        return Encoding(task, options)
    by_ending: dict[str, list[Path]] = {}
    for path in paths:
        by_ending.setdefault(path.suffix.lower(), []).append(path)
    encoding = decide(task, _gather(task, list(by_ending.values()), options), options)
    if any(check_of(task, rule, options) for rule in encoding.rules.values()):
        for files in by_ending.values():
            for path in spread(files, SAMPLED):
                _look_again(encoding, path)
    return encoding


def _look_again(encoding: Encoding, path: Path) -> None:
    try:
        encoding.require_alike(read_map(path, _palette(encoding.task)), path)
    except ContradictionError:
        raise
    except (DecodeError, OSError):
        return  # its own reading says what is wrong


def _gather(task: Task, by_ending: Sequence[Sequence[Path]], options: MapOptions) -> list[Evidence]:
    """Evidence of a bounded sample of files, one entry for each way of storing numbers."""
    found: dict[Storage, Evidence] = {}
    for files in by_ending:
        chosen = spread(files, SAMPLED)
        for path in chosen:
            _look(task, path, options, found)
        rest = spread([path for path in files if path not in set(chosen)], MORE)
        for path in rest:
            if any(item.high > 0 for item in found.values()) or kind_of(task) not in ("share", "binary"):
                break
            _look(task, path, options, found)
    return [found[storage] for storage in sorted(found)]


def _look(task: Task, path: Path, options: MapOptions, found: dict[Storage, Evidence]) -> None:
    with suppress(DecodeError, OSError):
        add_evidence(task, read_map(path, _palette(task)), path, options, found)


def add_evidence(
    task: Task, stored: Stored, path: Path, options: MapOptions, found: dict[Storage, Evidence]
) -> None:
    """Add what a label holds to the evidence of labels that store numbers alike.

    Raises:
        DecodeError: another number of channels than the task has.
    """
    values, missing = fitted(task, stored, options, path)
    if kind_of(task) == "length":
        nothing: NDArray[np.bool_] = np.asarray(
            (values <= 0).all(axis=2)
        )  # means "no reading" whatever else is said
        missing = nothing if missing is None else missing | nothing
    part = measure(path, stored.storage, values, missing)
    if kind_of(task) == "length" and not part.pixels and bool((values < 0).any()):
        part = replace(part, negative=1)
    earlier = found.get(stored.storage)
    found[stored.storage] = part if earlier is None else earlier + part


def fitted(
    task: Task, stored: Stored, options: MapOptions, path: Path
) -> tuple[Array, NDArray[np.bool_] | None]:
    """Numbers (H, W, C) as the task has channels, and pixels (H, W) without label; None = nowhere."""
    values, clear = stored.fitting(path, task.name, 1 if task.label != "values" else task.label_channels)
    missing = options.missing(values)
    if clear is not None:
        missing = clear if missing is None else missing | clear
    return values, missing


def spread(files: Sequence[Path], count: int) -> Sequence[Path]:
    """At most `count` of the files, evenly; always the same ones."""
    if len(files) <= count:
        return files
    return [files[(2 * index + 1) * len(files) // (2 * count)] for index in range(count)]


def _palette(task: Task) -> Literal["ids", "colours"]:
    return "ids" if task.label != "values" or kind_of(task) == "share" else "colours"


def _instances(stored: Array, missing: NDArray[np.bool_] | None, path: Path) -> Array:
    if stored.dtype.kind not in "iu":
        raise DecodeError(
            f"{path}: instances are an integer map (H, W), found {stored.dtype} {stored.shape}. Write ids "
            "with mtvision.core.instances.encode_instances."
        )
    wide = np.iinfo(np.int32)
    beyond = stored[(stored < wide.min) | (stored > wide.max)] if stored.dtype.itemsize > 2 else stored[:0]
    if beyond.size:
        raise DecodeError(
            f"{path}: holds the instance id {int(beyond.flat[0])}, expected at most {wide.max}. Write ids "
            "with mtvision.core.instances.encode_instances."
        )
    ids = stored.astype(np.int32)
    return ids if missing is None else np.where(missing, np.int32(IGNORE), ids)


def _whole(
    stored: Array, missing: NDArray[np.bool_] | None, path: Path
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Ids that are stored as real numbers, where NaN has no label."""
    absent = np.isnan(stored)
    ids = np.where(absent, float(IGNORE), stored.astype(np.float64))
    odd = ids[(ids != np.rint(ids)) | (np.abs(ids) > 2**31)]
    if odd.size:
        raise DecodeError(
            f"{path}: class ids must be whole numbers, found {odd[0]:g}. Are these probabilities? Store ids."
        )
    return ids.astype(np.int64), missing if missing is None or not absent.any() else missing | absent


def _mask(rule: Rule, stored: Array, path: Path, missing: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if rule.cut is not None:
        return np.asarray(stored > rule.cut)
    high = stored == rule.levels[1] if len(rule.levels) > 1 else np.zeros(stored.shape, dtype=bool)
    other = (stored != rule.levels[0]) & ~high
    if missing is not None:
        other &= ~(missing if other.ndim == missing.ndim else missing[..., None])
    if stored.dtype.kind == "f":
        other &= np.isfinite(stored)
    if other.any():
        raise DecodeError(
            f"{path}: holds {float(stored[other][0]):g}, but the files that were looked at are {rule.found}. "
            "Say encoding='mask' to cut at half, or for soft maps scale=, the number that means 1."
        )
    return np.asarray(high)


def _top(stored: Array) -> float:
    return 1.0 if stored.dtype.kind == "b" else float(np.iinfo(stored.dtype).max)
