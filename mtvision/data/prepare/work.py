"""What all preparations share: files appear whole or not at all, work runs in parallel and resumes."""

from __future__ import annotations

import filecmp
import io
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.registry.workers import WorkerStart
from mtvision.runtime.atomic import atomic_path
from mtvision.runtime.progress import counting

Job = TypeVar("Job")
_PART = 2**20
"""Bytes in memory at a time while a file is unpacked."""


@dataclass
class Outcome:
    """Result of a preparation.

    Args:
        written: files written now.
        kept: files that were already there.
        problems: one line per item that could not be prepared; empty = complete.
        off: {task: why the prepared folder has no label for it}.
        notes: what a user must know before comparing scores.
        dataset: class that reads the prepared folder.
    """

    written: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    off: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dataset: str = ""

    def add(self, other: Outcome) -> None:
        """Count another outcome in."""
        self.written += other.written
        self.kept += other.kept
        self.problems += other.problems
        self.off |= other.off
        self.notes += [note for note in other.notes if note not in self.notes]


def write_compared(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and read it back.

    Raises:
        OSError: the file does not hold what was written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        if temporary.read_bytes() != content:
            raise OSError(f"{path}: the file does not hold what was written. Check the disk and its space.")


def write_stream(path: Path, content: IO[bytes], size: int) -> None:
    """Write so many bytes of a stream, a part at a time, whole or not at all; then read them back.

    Raises:
        EOFError: the stream has fewer or more bytes.
        OSError: the file does not hold what was written.
    """
    with atomic_path(path) as temporary:
        written, checksum = 0, 0
        with temporary.open("wb") as file:
            while part := content.read(_PART):
                written, checksum = written + len(part), zlib.crc32(part, checksum)
                if written > size:
                    break
                file.write(part)
        if written != size:
            raise EOFError(f"{path.name}: {written} bytes or more, expected {size}")
        found = 0
        with temporary.open("rb") as file:
            while part := file.read(_PART):
                found = zlib.crc32(part, found)
        if found != checksum:
            raise OSError(f"{path}: the file does not hold what was written. Check the disk and its space.")


def write_png(path: Path, array: NDArray[Any]) -> None:
    """Write an 8- or 16-bit map (H, W) or RGB picture (H, W, 3), then read it back and compare.

    Raises:
        TypeError: the array is of another type.
        OSError: the file does not hold what was written.
    """
    if array.dtype not in (np.uint8, np.uint16):  # OpenCV would convert it silently
        raise TypeError(f"{path}: a PNG holds uint8 or uint16, not {array.dtype}.")
    picture = array[..., ::-1] if array.ndim == 3 else array
    done, encoded = cv2.imencode(".png", picture)
    content = encoded.tobytes()
    read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if done else None
    if read is None or not np.array_equal(read, picture):
        raise OSError(
            f"{path}: an array of shape {array.shape} and type {array.dtype} does not survive as PNG."
        )
    write_compared(path, content)


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write a NumPy file whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_compared(path, buffer.getvalue())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all, and compare.

    Raises:
        OSError: the copy differs.
    """
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
        if not filecmp.cmp(source, temporary, shallow=False):
            raise OSError(f"{target}: differs from {source}, of which it is a copy. Check the disk.")


def missing(paths: Sequence[Path]) -> list[Path]:
    """Those outputs that do not exist yet; an empty file counts as missing."""
    return [path for path in paths if not path.is_file() or path.stat().st_size == 0]


def run_jobs(
    function: Callable[[Job], Outcome],
    jobs: Sequence[Job],
    *,
    workers: int,
    title: str,
    progress: bool = True,
) -> Outcome:
    """Run `function` on every job, in `workers` processes (1 = this one), under a progress bar.

    A job that raises becomes a line of `problems`; the other jobs continue.
    """
    total = Outcome()
    with counting(title, len(jobs), quiet=not progress) as counter, _executor(workers) as executor:
        futures: list[tuple[Job, Future[Outcome] | None]] = [
            (job, executor.submit(function, job) if executor else None) for job in jobs
        ]
        for job, future in futures:
            total.add(_guard(future.result if future else partial(function, job)))
            counter.advance()
    return total


def _guard(call: Callable[[], Outcome]) -> Outcome:
    try:
        return call()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        return Outcome(problems=[str(error)])


@contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    if workers <= 1:
        yield None
        return
    # spawn: the parent may hold open HDF5 files and threads, which a fork would copy in an undefined state
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(WorkerStart.here(),)
    ) as pool:
        yield pool


def _start(load_plugins: WorkerStart) -> None:
    cv2.setNumThreads(0)
    load_plugins()
