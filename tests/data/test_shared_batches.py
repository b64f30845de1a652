"""Batches that cross processes through shared segments are the batches that `collate` makes."""

from __future__ import annotations

import torch

from mtvision.core.sample import Batch, collate
from mtvision.data import shared_batches
from mtvision.data.shared_batches import BatchLoader, collate_shared, pack
from mtvision.data.synthetic import SyntheticScenes


def equal(a: Batch, b: Batch) -> bool:
    pairs = [(a.image, b.image), *((a.labels[k], b.labels[k]) for k in a.labels)]
    pairs += [(a.present[k], b.present[k]) for k in a.present]
    same = all(x.dtype == y.dtype and x.shape == y.shape for x, y in pairs)
    bits = all(torch.equal(x.nan_to_num(nan=7e7), y.nan_to_num(nan=7e7)) for x, y in pairs)
    return same and bits and list(a.labels) == list(b.labels) and a.meta == b.meta


def batches(count=6, size=(24, 32)):
    data = SyntheticScenes(split="train", length=count, size=size)
    return data, [
        collate([data[index] for index in pair]) for pair in zip(*[iter(range(count))] * 2, strict=True)
    ]


def test_workers_change_no_bit():
    data, plain = batches()
    sampler = [[0, 1], [2, 3], [4, 5]]
    loader = BatchLoader(data, batch_sampler=sampler, num_workers=2, persistent_workers=True)
    for _ in range(2):
        got = list(loader)
        assert len(got) == 3
        assert all(equal(a, b) for a, b in zip(got, plain, strict=True))
    alone = list(BatchLoader(data, batch_sampler=sampler))
    assert all(equal(a, b) for a, b in zip(alone, plain, strict=True))


def test_a_segment_is_used_again_once_its_batch_was_copied_out(monkeypatch):
    monkeypatch.setattr(shared_batches, "_segments", [])
    _, plain = batches()
    first, second = pack(plain[0]), pack(plain[1])
    assert first.segment.data_ptr() != second.segment.data_ptr()
    assert equal(first.unpack(), plain[0])
    third = pack(plain[2])
    assert third.segment.data_ptr() == first.segment.data_ptr()
    assert equal(second.unpack(), plain[1])
    assert equal(third.unpack(), plain[2])
    assert len(shared_batches._segments) == 2


def test_batches_of_other_sizes_and_tasks(monkeypatch):
    monkeypatch.setattr(shared_batches, "_segments", [])
    small, large = batches(2, (16, 16))[1][0], batches(2, (40, 48))[1][0]
    for batch in (small, large, small.part([1]), Batch(small.image, {}, {}, small.meta)):
        assert equal(pack(batch).unpack(), batch)
    assert len(shared_batches._segments) == 1


def test_what_was_copied_out_does_not_change_with_the_segment(monkeypatch):
    monkeypatch.setattr(shared_batches, "_segments", [])
    _, plain = batches()
    kept = pack(plain[0]).unpack()
    pack(plain[1])
    assert equal(kept, plain[0])


def test_batches_that_nobody_received_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(shared_batches, "_segments", [])
    _, plain = batches(2)
    for _ in range(shared_batches._MOST):
        pack(plain[0])
    assert pack(plain[0]) is plain[0]
    assert len(shared_batches._segments) == shared_batches._MOST


def test_outside_a_worker_nothing_is_packed():
    data, plain = batches(2)
    assert equal(collate_shared([data[0], data[1]]), plain[0])
