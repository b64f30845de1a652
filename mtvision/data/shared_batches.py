"""Batches from worker processes through shared memory that is used again.

A batch of dense labels is large, and PyTorch's loader makes new shared memory for each. Most of the time of a
hand-over then goes into page faults. Here every worker keeps a few segments. It copies a batch into a free
one. The receiver copies it out and marks the segment free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from mtvision.core.sample import Batch, Meta, Sample, collate

_HEAD = 64  # bytes before the first tensor; byte 0 is 1 while a batch waits in the segment
Place = tuple[torch.dtype, tuple[int, ...], int]
"""dtype, shape, and first byte of a tensor in its segment."""

_MOST = 8  # segments of a worker; those of batches that nobody received stay taken
_segments: list[Tensor] = []  # of this worker process


@dataclass(frozen=True)
class Parcel:
    """A batch in a shared segment.

    Args:
        segment: bytes, shared with the worker that made the batch.
        image: where the images lie.
        labels: {task: where its labels lie}.
        present: {task: where the flags of its samples lie}.
        meta: of the samples.
    """

    segment: Tensor
    image: Place
    labels: dict[str, Place]
    present: dict[str, Place]
    meta: list[Meta]

    def unpack(self) -> Batch:
        """Copy the batch out and mark the segment free; to be called once."""
        image = self._copy(self.image)
        labels = {name: self._copy(place) for name, place in self.labels.items()}
        present = {name: self._copy(place) for name, place in self.present.items()}
        self.segment[0] = 0
        return Batch(image=image, labels=labels, present=present, meta=self.meta)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory (the hook that `DataLoader(pin_memory=True)` calls)."""
        return self.unpack().pin_memory()

    def _copy(self, place: Place) -> Tensor:
        dtype, shape, first = place
        size = math.prod(shape) * dtype.itemsize
        return self.segment[first : first + size].view(dtype).view(shape).clone()


def collate_shared(samples: Sequence[Sample]) -> Batch | Parcel:
    """`collate`; in a worker process, the batch is put into a segment of that worker."""
    batch = collate(samples)
    return batch if get_worker_info() is None else pack(batch)


def pack(batch: Batch) -> Batch | Parcel:
    """Copy a batch into a free segment of this process; a new one is made where none is large enough.

    Where all are taken and there may be no more, the batch is returned as it is.
    """
    tensors = [batch.image, *batch.labels.values(), *batch.present.values()]
    places: list[Place] = []
    end = _HEAD
    for tensor in tensors:
        places.append((tensor.dtype, tuple(tensor.shape), end))
        end += -(-tensor.nbytes // _HEAD) * _HEAD
    segment = _free_segment(end)
    if segment is None:
        return batch
    segment[0] = 1
    for tensor, (_, _, first) in zip(tensors, places, strict=True):
        target = segment[first : first + tensor.nbytes].view(tensor.dtype)
        target.copy_(tensor.reshape(-1))
    labels = dict(zip(batch.labels, places[1:], strict=False))
    present = dict(zip(batch.present, places[1 + len(labels) :], strict=True))
    return Parcel(segment, places[0], labels, present, batch.meta)


def _free_segment(size: int) -> Tensor | None:
    for index, segment in enumerate(_segments):
        if segment[0] == 0:
            if segment.numel() < size:  # too small for good: the receiver drops it as well
                _segments[index] = segment = _new_segment(size)
            return segment
    if len(_segments) == _MOST:
        return None
    _segments.append(_new_segment(size))
    return _segments[-1]


def _new_segment(size: int) -> Tensor:
    segment = torch.zeros(size, dtype=torch.uint8)
    segment.share_memory_()  # type: ignore[no-untyped-call]
    return segment


class BatchLoader(DataLoader[Batch]):
    """A loader of batches whose workers hand them over with `collate_shared`."""

    def __init__(self, dataset: Any, **options: Any) -> None:
        super().__init__(dataset, collate_fn=collate_shared, **options)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batches, in order."""
        kept: dict[int, Tensor] = {}  # PyTorch maps a segment once for as long as somebody holds it
        for item in super().__iter__():
            if isinstance(item, Parcel):
                kept[item.segment.data_ptr()] = item.segment
                yield item.unpack()
            else:
                yield item
