"""Scores folders of boundary maps: pairs files, counts images in parallel, caches finished ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, astuple, dataclass, fields
from math import isfinite
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.find import FoundFiles, find_files
from mtvision.core.files.ids import lines_of, matched_ids
from mtvision.core.files.names import differs_in_case
from mtvision.core.files.text import Line
from mtvision.metrics.boundary.aggregate import Point, Summary, summarize
from mtvision.metrics.boundary.counts import ImageCounts, count_image
from mtvision.metrics.boundary.protocols import BoundaryProtocol
from mtvision.metrics.boundary.readers import (
    PREDICTION_SUFFIXES,
    TRUTH_SUFFIXES,
    read_prediction,
    read_truth,
)

_log = logging.getLogger("mtvision")

COUNTS_VERSION = 1
"""Raised when the counts of an image change, so that remembered ones are not used any more."""


class Reader(Protocol):
    """Reads prediction files of one folder; picklable.

    Attributes:
        statement: what it takes the numbers in the files to mean.
    """

    statement: str

    def __call__(self, path: Path) -> NDArray[np.floating]:
        """A boundary map (H, W) in 0..1."""


@dataclass(frozen=True)
class Pair:
    """One image's files."""

    id: str
    prediction: Path
    truth: Path


@dataclass(frozen=True)
class Evaluation:
    """Result of a run over folders.

    Args:
        protocol: what was computed.
        ids: image ids, sorted.
        counts: one entry per id.
        summary: scores.
        reused: number of images whose counts were cached.
    """

    protocol: BoundaryProtocol
    ids: list[str]
    counts: list[ImageCounts]
    summary: Summary
    reused: int

    def as_json(self) -> dict[str, Any]:
        """Plain data: scores as fractions, the curve, and every image's best point; NaN becomes None."""
        s = self.summary
        curve = {"threshold": s.thresholds, "recall": s.recall, "precision": s.precision, "f": s.f}
        curve |= {
            item.name: np.sum([getattr(counts, item.name) for counts in self.counts], axis=0)
            for item in fields(ImageCounts)
        }
        return {
            "protocol": asdict(self.protocol),
            "images": len(self.ids),
            "complete": self.protocol.images in (None, len(self.ids)),
            "scores": {name: _number(value) for name, value in s.scores().items()},
            "ods": _point(s.ods),
            "ois": _point(s.ois),
            "curve": {name: values.tolist() for name, values in curve.items()},
            "per_image": {i: _point(point) for i, point in zip(self.ids, s.images, strict=True)},
        }


def find_pairs(
    predictions: Path,
    truths: Path,
    protocol: BoundaryProtocol,
    *,
    ids: Sequence[str | Line] | None = None,
    subset: bool = False,
) -> list[Pair]:
    """Pair every ground truth with the prediction of the same file name, without extension.

    Args:
        predictions: folder of `.png`, `.npy` or `.mat`; files without ground truth are not used.
        truths: folder of `.mat`, `.png` or `.npy`.
        protocol: its number of images is checked.
        ids: names (without extension) or lines of a list to use, by default all of `truths`.
        subset: accept another number of images than the protocol's.

    Raises:
        FileNotFoundError: a folder or a file is missing.
        ValueError: two files have one name, or the number of images is not the protocol's.
    """
    truth_files = _found(truths, TRUTH_SUFFIXES).files
    prediction_files = _found(predictions, PREDICTION_SUFFIXES).files
    wanted = list(truth_files) if ids is None else _matched(ids, truth_files, truths)
    _require(wanted, prediction_files, predictions, "prediction")
    if protocol.images is not None and len(wanted) != protocol.images and not subset:
        where = f"They are listed in {protocol.image_list}. " if protocol.image_list else ""
        raise ValueError(
            f"{truths}: found {len(wanted)} images, protocol {protocol.id} has {protocol.images}. {where}"
            "Give the folder or the list (--images) of exactly that split, or --subset to score a part. "
            "Scores of a part are not comparable with published ones."
        )
    return [Pair(name, prediction_files[name], truth_files[name]) for name in wanted]


def evaluate_folders(
    pairs: Sequence[Pair],
    protocol: BoundaryProtocol,
    *,
    workers: int = 1,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
    read: Reader | None = None,
) -> Evaluation:
    """Score pairs of files.

    Args:
        pairs: what to score, see `find_pairs`.
        protocol: how.
        workers: processes; 1 or less works in this one.
        cache: folder for the counts of finished images; an interrupted run continues from them. An entry is
            used again only for identical files, protocol and code version.
        progress: called with the number of finished images after each.
        read: gives the boundary map of a file; None = `read_prediction`, which sees one file only.

    Raises:
        ValueError: there are no pairs, or a file is unreadable or of another size; the message names the
            image.
    """
    if not pairs:
        raise ValueError("there are no images to score.")
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    done: dict[str, ImageCounts] = {}
    reused = 0
    for name, counts, remembered in _results(pairs, protocol, workers, cache, read):
        done[name] = counts
        reused += remembered
        if progress is not None:
            progress(len(done))
    ids = sorted(done)
    counts_of = [done[name] for name in ids]
    if not any(item.truth.any() for item in counts_of):
        _log.warning(
            "%s: no ground truth of %s has an edge, so that the scores say nothing. Is it the right folder?",
            pairs[0].truth.parent,
            f"the {len(ids)} images" if len(ids) > 1 else "the image",
        )
    return Evaluation(protocol, ids, counts_of, summarize(counts_of, protocol), reused)


def evaluate_pair(
    pair: Pair, protocol: BoundaryProtocol, cache: Path | None, read: Reader | None = None
) -> tuple[str, ImageCounts, bool]:
    """Counts of one image, computed or cached (then the last item is True)."""
    key = _fingerprint(pair, protocol, read) if cache is not None else ""
    path = cache / f"{pair.id}.npz" if cache is not None else None
    if path is not None:
        remembered = _load(path, key)
        if remembered is not None:
            return pair.id, remembered, True
    try:
        prediction = (read or read_prediction)(pair.prediction)
        counts = count_image(prediction, read_truth(pair.truth, protocol), protocol)
    except ValueError as error:
        raise ValueError(f"image '{pair.id}': {error}") from error
    if path is not None:
        _save(path, key, counts)
    return pair.id, counts, False


def _results(
    pairs: Sequence[Pair], protocol: BoundaryProtocol, workers: int, cache: Path | None, read: Reader | None
) -> Iterator[tuple[str, ImageCounts, bool]]:
    if workers <= 1:
        for pair in pairs:
            yield evaluate_pair(pair, protocol, cache, read)
        return
    queue = iter(pairs)
    pool = ProcessPoolExecutor(min(workers, len(pairs)), mp_context=get_context("spawn"))
    try:
        running: set[Future[tuple[str, ImageCounts, bool]]] = set()
        while True:
            while len(running) < 4 * workers and (following := next(queue, None)) is not None:
                running.add(pool.submit(evaluate_pair, following, protocol, cache, read))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _found(folder: Path, suffixes: Sequence[str]) -> FoundFiles:
    hint = f"It should hold one of {', '.join(suffixes)} per image."
    found = find_files(folder, suffixes, depth=0, hint=hint)
    if not found.files:
        there = f" There are: {found.reasons()}." if found.reasons() else ""
        raise FileNotFoundError(f"{folder}: holds no file of {', '.join(suffixes)}.{there}")
    if found.summary():
        _log.warning("%s", found.summary())
    return found


def _matched(ids: Sequence[str | Line], truth_files: Mapping[str, Path], truths: Path) -> list[str]:
    found = matched_ids(
        lines_of(ids), truth_files, where="list of images", folder=truths, endings=(*TRUTH_SUFFIXES, ".jpg")
    )
    if found.missing:
        why = found.explain(truth_files)
        _require([line.text for line in found.missing], {}, truths, "ground truth", why=why, total=len(ids))
    if found.remark():
        _log.warning("%s", found.remark())
    return found.ids


def _require(
    wanted: Sequence[str],
    files: Mapping[str, Path],
    folder: Path,
    what: str,
    *,
    why: str = "",
    total: int | None = None,
) -> None:
    missing = [name for name in wanted if name not in files]
    if missing:
        other = differs_in_case(missing[0], files)
        hint = f"'{other}' differs in upper and lower case." if other else why
        listing = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {total or len(wanted)} images have no {what}: {listing}. "
            f"{hint}".rstrip()
        )


def _fingerprint(pair: Pair, protocol: BoundaryProtocol, read: Reader | None) -> str:
    digest = hashlib.sha256(repr((COUNTS_VERSION, protocol.counting())).encode())
    digest.update(b"" if read is None else read.statement.encode())
    for path in (pair.prediction, pair.truth):
        digest.update(path.suffix.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(path: Path, key: str) -> ImageCounts | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return ImageCounts(*stored["counts"])
    except (OSError, KeyError, ValueError, EOFError, BadZipFile):
        return None  # absent, or cut off by a crash: count again
    return None


def _save(path: Path, key: str, counts: ImageCounts) -> None:
    # written directly: `_load` finds a file that a crash cut off by its checksums and counts again
    np.savez_compressed(path, key=np.array(key), counts=np.stack(astuple(counts)))


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _point(point: Point) -> dict[str, float | None]:
    return {name: _number(value) for name, value in asdict(point).items()}
