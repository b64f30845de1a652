"""Loaders with workers: the suite's, PyTorch's own, and a plain implementation with as many processes."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from mtvision.core.sample import SampleKey, collate
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.shared_batches import BatchLoader
from mtvision.data.speed import plain_sample, write_frames

WORKERS, BATCH = 2, 2
IMAGES = 12
"""Different frames; they are read again and again, with other random numbers."""

Table = dict[str, dict[str, float]]
"""{loader: {`clock`, `processor`: ms a sample, medians of all turns}}"""


class PlainFrames(Dataset[dict[str, torch.Tensor]]):
    """The training samples of NYUD-v2 as `plain_sample` makes them.

    Args:
        root: of the frames.
        ids: of the images.
    """

    def __init__(self, root: Path, ids: list[str]) -> None:
        self._root, self._ids = root, ids

    def __getitem__(self, key: SampleKey) -> dict[str, torch.Tensor]:
        return plain_sample(self._root, self._ids[key.index], key.index)

    def __len__(self) -> int:
        return len(self._ids)


class _Order:
    """Batches of one pass.

    Args:
        count: of the batches.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for first in range(0, self._count * BATCH, BATCH):
            yield [SampleKey(epoch=at // IMAGES, index=at % IMAGES) for at in range(first, first + BATCH)]

    def __len__(self) -> int:
        return self._count


def benchmark_loader(repeats: int, write: Callable[[str], object], batches: int = 30) -> Table:
    """Milliseconds a sample by the clock, and of processor time in all processes together.

    Workers run on from turn to turn. Turns follow one another, so that all loaders run under the same load.
    The processor time of workers is that of Linux, in steps of 10 ms; elsewhere it is not counted.

    Args:
        repeats: counted turns.
        write: gets one line per loader.
        batches: of a turn.
    """
    threads = torch.get_num_threads(), cv2.getNumThreads()
    with tempfile.TemporaryDirectory(prefix="mtvision-speed-") as folder:
        root = write_frames(Path(folder) / "NYUDv2", IMAGES)
        _one_thread(0)
        loaders = _loaders(root, batches)
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
        for turn in range(repeats + 1):
            for name, loader in loaders.items():
                measured = _measure(loader, batches * BATCH)
                if turn:
                    turns[name].append(measured)
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])
    table: Table = {}
    base = next(iter(turns))
    for name, values in turns.items():
        clock, processor = (statistics.median(item) for item in zip(*values, strict=True))
        clocks = [item for item, _ in values]
        table[name] = {"clock": clock, "least": min(clocks), "most": max(clocks), "processor": processor}
        write(
            f"  {name:40} {clock:5.1f} ms ({min(clocks):.1f} to {max(clocks):.1f}), processor "
            f"{processor:5.1f} ms; on {WORKERS} free cores at most "
            f"{WORKERS * table[base]['processor'] / processor:.2f} times {base}"
        )
    return table


def _loaders(root: Path, batches: int) -> dict[str, DataLoader[Any]]:
    suite = NYUDv2(root, split="train", transforms="invpt-train", check=False)
    plain = PlainFrames(root, list(suite.ids))
    order = _Order(batches)
    several: dict[str, Any] = {
        "batch_sampler": order,
        "num_workers": WORKERS,
        "worker_init_fn": _one_thread,
        "persistent_workers": True,
        "generator": torch.Generator(),
    }
    one: Callable[..., DataLoader[Any]] = partial(DataLoader, batch_sampler=order)
    return {
        "suite in one process": one(suite, collate_fn=collate),
        "suite, two workers": BatchLoader(suite, **several),
        "suite, two workers of PyTorch's loader": DataLoader(suite, collate_fn=collate, **several),
        "plain in one process": one(plain),
        "plain, two workers of PyTorch's loader": DataLoader(plain, **several),
    }


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _measure(loader: DataLoader[Any], samples: int) -> tuple[float, float]:
    """Clock and processor time of a pass, ms a sample."""
    begin, before = time.perf_counter(), _processor()
    for _batch in loader:
        pass
    return 1e3 * (time.perf_counter() - begin) / samples, 1e3 * (_processor() - before) / samples


def _processor() -> float:
    """Seconds of this process and of its children."""
    return time.process_time() + sum(_of_child(child.pid) for child in multiprocessing.active_children())


def _of_child(process: int | None) -> float:
    place = Path(f"/proc/{process}/stat")
    if not place.exists():
        return 0.0
    user, system = place.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
