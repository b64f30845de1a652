"""Counting what is in a split: additive, so that processes can share the work."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.pictures import orientation_in
from mtvision.core.registry.workers import WorkerStart
from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE, Task
from mtvision.data.check.jpeg import is_patched_jpeg
from mtvision.data.dataset import DenseDataset

FLAT = 2.0
"""Standard deviation in gray levels below which a picture shows nothing."""
CHUNK = 16


@dataclass
class TaskStatistics:
    """Counts of the labels of one task.

    Args:
        images: with a label.
        empty: ids whose label is "none" everywhere.
        pixels: of all labels.
        unlabelled: pixels without a label.
        histogram: {class id: pixels}, for `classes`.
        low: smallest value.
        high: largest value.
        sums: sum of each channel over labelled pixels.
        negative: labelled pixels below 0.
        beyond: labelled pixels at or beyond the metric's `max_depth`.
        off_unit: pixels of a direction whose length is not within 0.9..1.1.
        facing: for each channel of a direction, how many pixels are positive.
        between: pixels of an edge map that are neither 0 nor 1.
    """

    images: int = 0
    empty: list[str] = field(default_factory=list)
    pixels: int = 0
    unlabelled: int = 0
    histogram: Counter[int] = field(default_factory=Counter)
    low: float = np.inf
    high: float = -np.inf
    sums: list[float] = field(default_factory=list)
    negative: int = 0
    beyond: int = 0
    off_unit: int = 0
    facing: list[int] = field(default_factory=list)
    between: int = 0

    @property
    def labelled(self) -> int:
        """Pixels with a label."""
        return self.pixels - self.unlabelled

    @property
    def ignored(self) -> float:
        """Share of pixels without a label."""
        return self.unlabelled / self.pixels if self.pixels else 0.0

    def add(self, other: TaskStatistics) -> None:
        """Count another part in."""
        self.images += other.images
        self.empty += other.empty
        self.histogram.update(other.histogram)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.sums = _add(self.sums, other.sums)
        self.facing = _add(self.facing, other.facing)
        for name in ("pixels", "unlabelled", "negative", "beyond", "off_unit", "between"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class SplitStatistics:
    """Counts of one split.

    Args:
        read: images that could be read.
        failures: {id: message} of those that could not.
        sizes: {(H, W): images}.
        gray: ids of pictures without colour.
        flat: ids of pictures that show nothing.
        turned: ids of pictures whose files say that they are shown turned.
        patched: ids of JPEG pictures that their decoder warns about.
        unseen: {id: objects that the annotations list and no label shows}, where there are any.
        checksums: {checksum of the pixels: ids}.
        tasks: {task: statistics}.
    """

    read: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    gray: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    patched: list[str] = field(default_factory=list)
    unseen: dict[str, int] = field(default_factory=dict)
    checksums: dict[int, list[str]] = field(default_factory=dict)
    tasks: dict[str, TaskStatistics] = field(default_factory=dict)

    def add(self, other: SplitStatistics) -> None:
        """Count another part in."""
        self.read += other.read
        self.failures |= other.failures
        self.sizes.update(other.sizes)
        self.gray += other.gray
        self.flat += other.flat
        self.turned += other.turned
        self.patched += other.patched
        self.unseen |= other.unseen
        for checksum, names in other.checksums.items():
            self.checksums.setdefault(checksum, []).extend(names)
        for name, statistics in other.tasks.items():
            self.tasks.setdefault(name, TaskStatistics()).add(statistics)


def collect(
    dataset: DenseDataset,
    indices: Sequence[int],
    *,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
    seen: Callable[[RawSample], None] | None = None,
) -> SplitStatistics:
    """Read and count the given images; an image that cannot be read becomes a failure.

    Args:
        dataset: any data set of the suite.
        indices: which images.
        workers: processes; 1 = this one.
        advance: called with the number of images done since the last call.
        seen: called with every sample that could be read; needs `workers=1`.

    Raises:
        ValueError: `seen` with several processes, where it would be called in another one.
    """
    if seen is not None and workers > 1:
        raise ValueError(f"collect: seen= is called in this process, but workers={workers}; use workers=1.")
    total = SplitStatistics(tasks={name: TaskStatistics() for name in dataset.tasks})
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    if workers <= 1:
        for chunk in chunks:
            total.add(_collect_chunk(dataset, chunk, seen))
            if advance:
                advance(len(chunk))
        return total
    start = WorkerStart.here()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start) as pool:
        futures = [pool.submit(_collect_chunk, dataset, chunk) for chunk in chunks]
        for future, chunk in zip(futures, chunks, strict=True):
            total.add(future.result())
            if advance:
                advance(len(chunk))
    return total


def _collect_chunk(
    dataset: DenseDataset, indices: Sequence[int], seen: Callable[[RawSample], None] | None = None
) -> SplitStatistics:
    total = SplitStatistics()
    for index in indices:
        name = dataset.ids[index]
        try:
            raw = dataset.read(index)
            dataset.validate(index, raw)
        except (ValueError, OSError, KeyError) as error:
            total.failures[name] = str(error)
            continue
        total.add(_measure(name, raw))
        if unseen := raw.meta.extra.get("objects_without_pixel"):
            total.unseen[name] = unseen
        source = Path(dataset.source(index))
        if orientation_in(source) != 1:
            total.turned.append(name)
        if is_patched_jpeg(source):
            total.patched.append(name)
        if seen is not None:
            seen(raw)
    return total


def _measure(name: str, raw: RawSample) -> SplitStatistics:
    image = np.ascontiguousarray(raw.image)
    colour = (image[..., :1] != image).any()
    result = SplitStatistics(read=1, sizes=Counter([(int(image.shape[0]), int(image.shape[1]))]))
    result.checksums[zlib.crc32(image.tobytes())] = [name]
    if not colour:
        result.gray.append(name)
    if image[::4, ::4].std() < FLAT:
        result.flat.append(name)
    for task, label in raw.labels.items():
        measure = _measure_values if raw.tasks[task].label == "values" else _measure_classes
        result.tasks[task] = measure(name, raw.tasks[task], label)
    return result


def _measure_classes(name: str, task: Task, label: NDArray[Any]) -> TaskStatistics:  # noqa: ARG001
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    histogram = Counter({int(i): int(counts[i]) for i in np.flatnonzero(counts) if i != IGNORE})
    result = TaskStatistics(images=1, pixels=label.size, unlabelled=int(counts[IGNORE]), histogram=histogram)
    if not result.labelled:
        result.empty.append(name)
    elif histogram:
        result.low, result.high = float(min(histogram)), float(max(histogram))
    return result


def _measure_values(name: str, task: Task, label: NDArray[np.float32]) -> TaskStatistics:
    valid = np.isfinite(label).all(axis=2)
    result = TaskStatistics(images=1, pixels=valid.size, unlabelled=int((~valid).sum()))
    values = label[valid].astype(np.float64)
    if not len(values):
        result.empty.append(name)
        return result
    result.low, result.high = float(values.min()), float(values.max())
    result.sums = values.sum(axis=0).tolist()
    result.negative = int((values < 0).any(axis=1).sum())
    limit = task.metric_option("max_depth")
    if limit is not None:
        result.beyond = int((values >= limit).any(axis=1).sum())
    if task.geometry == "direction":
        length = np.linalg.norm(values, axis=1)
        result.off_unit = int((np.abs(length - 1) > 0.1).sum())
        result.facing = [int(count) for count in (values > 0).sum(axis=0)]
    if task.activation == "sigmoid":
        result.between = int(((values != 0) & (values != 1)).any(axis=1).sum())
    return result


def _add(first: list[Any], second: list[Any]) -> list[Any]:
    if not first or not second:
        return list(first or second)
    return [a + b for a, b in zip(first, second, strict=True)]
