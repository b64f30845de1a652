"""Decoded samples in one memory-mapped file, so that training does not decode pictures again in every epoch.

A cache belongs to the content of its files. Where sizes and times are as they were noted, the files are not
read again.

What is read equals what was decoded, bit for bit. Real-valued maps with at most 256 different values take one
byte a pixel and a table of the values. These are all maps from 8-bit files, masked or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.json_file import read_json
from mtvision.core.registry.workers import WorkerStart
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE, Task
from mtvision.runtime.atomic import atomic_file, write_text
from mtvision.runtime.whole import file_sha256

ARRAYS, INDEX = "arrays.bin", "index.json"
_REMEDY = "Make it with tools/prepare_dataset.py ... --cache."
Encoded = tuple[NDArray[Any], NDArray[np.float32] | None]


class CacheSource(Protocol):
    """Source of a cache: one split whose images and labels are files below a root."""

    root: Path
    split: str

    @property
    def ids(self) -> Sequence[str]:
        """Images, in order."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """{name: task} of the labels."""

    def __len__(self) -> int: ...

    def parameters(self) -> Mapping[str, Any]:
        """Options that change the content of a sample, as plain data."""

    def image_path(self, name: str) -> Path:
        """The image file of one id."""

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """Every file that a label of one id is made from."""

    def decode(self, index: int) -> RawSample:
        """Decode one image and its labels from their files."""

    def validate(self, index: int, raw: RawSample) -> None:
        """Refuse a sample that is not what the tasks expect."""


class StaleCacheError(ValueError):
    """A cache does not belong to the data set that should be read from it."""


def _state(path: Path) -> str:
    """What changes whenever a file is written, even where a program sets its time back."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def fingerprints(dataset: CacheSource, *, content: bool = False) -> dict[str, str]:
    """One hash for the images and one for each task: names of the files, order, and parameters.

    Args:
        dataset: one split.
        content: hash what is in the files, which reads all of them, instead of their sizes and times.
    """
    header = json.dumps([dataset.ids, dict(dataset.parameters())], sort_keys=True)
    describe = file_sha256 if content else _state
    result = {}
    for part in ("image", *dataset.tasks):
        digest = hashlib.sha256(header.encode())
        for name in dataset.ids:
            paths = (dataset.image_path(name),) if part == "image" else dataset.label_paths(name, part)
            for path in paths:
                found = describe(path) if path.is_file() else None
                digest.update(f"{path.relative_to(dataset.root)} {found}\n".encode())
        result[part] = digest.hexdigest()
    return result


def write_cache(
    dataset: CacheSource,
    folder: Path,
    *,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Decode every sample into `folder/<split>`; nothing happens if it is there and belongs to the data.

    Args:
        dataset: one split; its tasks are stored.
        folder: outside the data set's own folder.
        workers: processes that decode.
        advance: called with 1 after every sample.

    Returns:
        Bytes of the cache.

    Raises:
        ValueError: `folder` lies inside the data set.
    """
    target = folder / dataset.split
    if dataset.root.resolve() in (target.resolve(), *target.resolve().parents):
        raise ValueError(
            f"{folder}: lies inside the data set {dataset.root}, which is never written to. Give another."
        )
    index_file, arrays_file = target / INDEX, target / ARRAYS
    marks = {"fingerprints": fingerprints(dataset), "contents": fingerprints(dataset, content=True)}
    try:
        found = _read_index(index_file)
    except (FileNotFoundError, DecodeError):
        found = {}
    if found.get("contents") == marks["contents"] and _size(arrays_file) == found["bytes"]:
        write_text(index_file, json.dumps({**found, **marks}))
        return int(found["bytes"])
    index_file.unlink(missing_ok=True)  # without an index there is no cache, whatever happens from here on
    samples = []
    with atomic_file(arrays_file) as file:
        for raw in _decoded(dataset, workers):
            entry: dict[str, Any] = {"id": raw.meta.id, "size": raw.meta.size, "extra": raw.meta.extra}
            entry["image"] = _append(file, (raw.image, None))
            entry["labels"] = {
                name: _append(file, encode(label, raw.tasks[name])) for name, label in raw.labels.items()
            }
            samples.append(entry)
            if advance:
                advance(1)
    size = arrays_file.stat().st_size
    write_text(index_file, json.dumps({**marks, "bytes": size, "samples": samples}))
    return size


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _read_index(path: Path) -> dict[str, Any]:
    """Content of a cache's index.

    Raises:
        FileNotFoundError: there is none.
        DecodeError: it is damaged, or of an earlier version.
    """
    content = read_json(path)
    kinds = {"fingerprints": dict, "contents": dict, "bytes": int, "samples": list}
    if not isinstance(content, dict) or any(type(content.get(key)) is not kinds[key] for key in kinds):
        raise DecodeError(f"{path}: not the index of a cache of this version. {_REMEDY}")
    return content


def encode(label: NDArray[Any], task: Task) -> Encoded:
    """Smallest exact form of a label: bytes, or bytes with a table of values, or the label itself."""
    if task.label == "classes":
        return label.astype(np.uint8), None
    if task.label == "instances":
        return label.astype(np.uint16), None
    bits, positions = np.unique(np.ascontiguousarray(label).view(np.uint32), return_inverse=True)
    if len(bits) > IGNORE + 1:
        return label, None
    return positions.reshape(label.shape).astype(np.uint8), bits.view(np.float32)


class ArrayCache:
    """One split's decoded samples.

    Args:
        folder: what `write_cache` was given.
        dataset: the split; the cache must have been made from the same files.

    Raises:
        FileNotFoundError: there is no cache.
        StaleCacheError: it was made from other files, or a task is not in it.
    """

    def __init__(self, folder: Path, dataset: CacheSource) -> None:
        self._file = folder / dataset.split / ARRAYS
        index = folder / dataset.split / INDEX
        if not index.is_file():
            raise FileNotFoundError(
                f"{index}: there is no complete cache of split '{dataset.split}'. {_REMEDY}"
            )
        content = _read_index(index)
        if _size(self._file) != content["bytes"]:
            raise StaleCacheError(
                f"{self._file}: {_size(self._file)} bytes, expected {content['bytes']}. {_REMEDY}"
            )
        if not _includes(content["fingerprints"], fingerprints(dataset)):
            # The files were copied or touched, or have changed: their content decides.
            _require_same(index.parent, content["contents"], fingerprints(dataset, content=True))
        self._samples: list[dict[str, Any]] = content["samples"]
        self._arrays: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": None}  # every process maps the file itself

    def read(self, index: int, tasks: Mapping[str, Task]) -> RawSample:
        """The sample at that position, restricted to `tasks`; class maps are uint8."""
        entry = self._samples[index]
        labels = {name: self._array(stored) for name, stored in entry["labels"].items() if name in tasks}
        size = (int(entry["size"][0]), int(entry["size"][1]))
        meta = Meta(id=entry["id"], size=size, original_size=size, extra=dict(entry["extra"]))
        return RawSample(image=self._array(entry["image"]), labels=labels, tasks=tasks, meta=meta)

    def _array(self, stored: Mapping[str, Any]) -> NDArray[Any]:
        array = self._slice(stored["offset"], stored["dtype"], stored["shape"])
        if stored["table"] is None:
            return array.copy()
        table = np.zeros(IGNORE + 1, dtype=np.float32)  # OpenCV looks up all 256 or none, and fast
        table[: stored["values"]] = self._slice(stored["table"], "<f4", [stored["values"]])
        return np.asarray(cv2.LUT(array, table)).reshape(stored["shape"])

    def _slice(self, offset: int, kind: str, shape: list[int]) -> NDArray[Any]:
        if self._arrays is None:
            self._arrays = np.memmap(self._file, dtype=np.uint8, mode="r")
        count = int(np.prod(shape)) * np.dtype(kind).itemsize
        return np.frombuffer(self._arrays[offset : offset + count], dtype=kind).reshape(shape)


def _includes(known: Mapping[str, Any], marks: Mapping[str, str]) -> bool:
    return all(known.get(part) == mark for part, mark in marks.items())


def _require_same(folder: Path, known: Mapping[str, Any], marks: Mapping[str, str]) -> None:
    for part, mark in marks.items():
        if known.get(part) != mark:
            what = "was made from other files" if part in known else "is not there"
            raise StaleCacheError(f"{folder}: the cached {part} {what}. {_REMEDY}")


def _append(file: Any, encoded: Encoded) -> dict[str, Any]:
    array, table = encoded
    entry = {"offset": file.tell(), "dtype": array.dtype.str, "shape": list(array.shape), "table": None}
    file.write(np.ascontiguousarray(array).tobytes())
    if table is not None:
        entry |= {"table": file.tell(), "values": len(table)}
        file.write(table.astype("<f4").tobytes())
    return entry


def _decoded(dataset: CacheSource, workers: int) -> Iterator[RawSample]:
    if workers <= 1:
        yield from (_checked(dataset, index) for index in range(len(dataset)))
        return
    ahead = 4 * workers  # decoded samples are large: never more of them in memory than this
    start = WorkerStart.here()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start) as pool:
        futures = [pool.submit(_checked, dataset, index) for index in range(min(ahead, len(dataset)))]
        for index in range(len(dataset)):
            yield futures.pop(0).result()
            if index + ahead < len(dataset):
                futures.append(pool.submit(_checked, dataset, index + ahead))


def _checked(dataset: CacheSource, index: int) -> RawSample:
    raw = dataset.decode(index)
    dataset.validate(index, raw)
    return raw
