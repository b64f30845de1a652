"""Batches from worker processes through shared memory that is used again, without a copy.

A batch of dense labels is large. PyTorch's loader stacks it and copies it into new shared memory. Both
processes then have a page fault for every 4 kB of it. Here every worker keeps a few segments and stacks a
batch inside a free one. The receiver's tensors are views of the segment. It is free again once none of them
is left.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from mtvision.core.sample import Batch, Meta, Sample, collate

_HEAD = 64  # bytes before the first tensor; byte 0 is 1 while a batch is in the segment
Place = tuple[torch.dtype, tuple[int, ...], int]
"""dtype, shape, and first byte of a tensor in its segment."""

_MOST = 8  # segments of a worker; those of batches that somebody keeps stay taken
_segments: list[Tensor] = []  # of this worker process


@dataclass(frozen=True)
class Parcel:
    """A batch in a shared segment.

    Args:
        segment: bytes, shared with the worker that made the batch.
        place: process and number of the segment; a larger one takes the place of one that was too small.
        image: where the images lie.
        labels: {task: where its labels lie}.
        present: {task: flags of its samples}.
        meta: of the samples.
    """

    segment: Tensor
    place: tuple[int, int]
    image: Place
    labels: dict[str, Place]
    present: dict[str, list[bool]]
    meta: list[Meta]

    def unpack(self) -> Batch:
        """The batch, as views of the segment; to be called once.

        The segment is marked free when the last tensor with this memory is gone.
        """
        content = self.segment.numpy()  # an object of its own for each call
        weakref.finalize(content, _release, self.segment, os.getpid()).atexit = False
        leased = torch.from_numpy(content)
        return Batch(
            image=_view(leased, self.image),
            labels={name: _view(leased, place) for name, place in self.labels.items()},
            present={name: torch.tensor(flags) for name, flags in self.present.items()},
            meta=self.meta,
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory (the hook that `DataLoader(pin_memory=True)` calls)."""
        return self.unpack().pin_memory()


def _view(leased: Tensor, place: Place) -> Tensor:
    dtype, shape, first = place
    return leased[first : first + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


def _release(segment: Tensor, process: int) -> None:
    if os.getpid() == process:  # a copy of the batch in a forked process has no say
        segment[0] = 0


def collate_shared(samples: Sequence[Sample]) -> Batch | Parcel:
    """`collate`; in a worker process, the batch is stacked inside a segment of that worker."""
    return collate(samples) if get_worker_info() is None else pack(samples)


def collate_by_shape(samples: Sequence[Sample]) -> list[Batch | Parcel]:
    """As `collate_shared`, one batch for each size of image, in the order in which sizes occur."""
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample.image.shape), []).append(sample)
    return [collate_shared(group) for group in groups.values()]


def pack(samples: Sequence[Sample]) -> Batch | Parcel:
    """Stack samples inside a free segment of this process; a new one is made where none is large enough.

    Where all are taken and there may be no more, the batch is made as `collate` does.

    Raises:
        ValueError: as `collate`.
    """
    number = _free_segment(_room(samples))
    if number is None:
        return collate(samples)
    segment = _segments[number]
    stack = _Stack(segment)
    batch = collate(samples, stack=stack)
    segment[0] = 1
    image, *others = stack.places
    labels = dict(zip(batch.labels, others, strict=True))
    present = {name: flags.tolist() for name, flags in batch.present.items()}
    return Parcel(segment, (os.getpid(), number), image, labels, present, batch.meta)


class _Stack:
    """`torch.stack` into a segment, one result behind the other."""

    def __init__(self, segment: Tensor) -> None:
        self._segment, self._end = segment, _HEAD
        self.places: list[Place] = []

    def __call__(self, tensors: list[Tensor]) -> Tensor:
        place = (tensors[0].dtype, (len(tensors), *tensors[0].shape), self._end)
        stacked = torch.stack(tensors, out=_view(self._segment, place))
        self.places.append(place)
        self._end += _aligned(stacked.nbytes)
        return stacked


def _room(samples: Sequence[Sample]) -> int:
    """Bytes that a batch takes in a segment."""
    maps = {name: label for sample in samples for name, label in sample.labels.items()}
    sizes = [item.nbytes * len(samples) for item in (samples[0].image, *maps.values())]
    return _HEAD + sum(map(_aligned, sizes))


def _aligned(size: int) -> int:
    return -(-size // _HEAD) * _HEAD


def _free_segment(size: int) -> int | None:
    """Number of a free segment with room; None where all are taken and there may be no more."""
    for number, segment in enumerate(_segments):
        if segment[0] == 0:
            if segment.numel() < size:
                _segments[number] = _new_segment(size)
            return number
    if len(_segments) == _MOST:
        return None
    _segments.append(_new_segment(size))
    return len(_segments) - 1


def _new_segment(size: int) -> Tensor:
    segment = torch.zeros(size, dtype=torch.uint8)
    segment.share_memory_()  # type: ignore[no-untyped-call]
    return segment


class BatchLoader(DataLoader[Batch]):
    """A loader of batches whose workers hand them over with `collate_shared`.

    Args:
        dataset: makes samples.
        by_shape: images of several sizes in a batch become a batch for each size, instead of an error.
        options: of PyTorch's loader.
    """

    def __init__(self, dataset: Any, *, by_shape: bool = False, **options: Any) -> None:
        super().__init__(dataset, collate_fn=collate_by_shape if by_shape else collate_shared, **options)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batches, in order."""
        # PyTorch maps a segment once for as long as somebody holds it
        kept: dict[tuple[int, int], Tensor] = {}
        for found in super().__iter__():
            for item in found if isinstance(found, list) else [found]:
                if isinstance(item, Parcel):
                    kept[item.place] = item.segment
                    yield item.unpack()
                else:
                    yield item
