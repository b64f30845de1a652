"""Batches that cross processes through shared segments are the batches that `collate` makes."""

from __future__ import annotations

import os

import pytest
import torch

from mtvision.core.sample import Batch, Sample, collate
from mtvision.data import shared_batches
from mtvision.data.shared_batches import BatchLoader, collate_shared, pack
from mtvision.data.synthetic import SyntheticScenes


def equal(a: Batch, b: Batch) -> bool:
    pairs = [(a.image, b.image), *((a.labels[k], b.labels[k]) for k in a.labels)]
    pairs += [(a.present[k], b.present[k]) for k in a.present]
    same = all(x.dtype == y.dtype and x.shape == y.shape for x, y in pairs)
    bits = all(torch.equal(x.nan_to_num(nan=7e7), y.nan_to_num(nan=7e7)) for x, y in pairs)
    return same and bits and list(a.labels) == list(b.labels) and a.meta == b.meta


def samples_of(count=6, size=(24, 32)):
    data = SyntheticScenes(split="train", length=count, size=size)
    return [data[index] for index in range(count)]


@pytest.fixture
def segments(monkeypatch):
    found = []
    monkeypatch.setattr(shared_batches, "_segments", found)
    return found


def test_workers_change_no_bit():
    data = SyntheticScenes(split="train", length=6, size=(24, 32))
    sampler = [[0, 1], [2, 3], [4, 5]]
    plain = [collate([data[index] for index in pair]) for pair in sampler]
    loader = BatchLoader(data, batch_sampler=sampler, num_workers=2, persistent_workers=True)
    for _ in range(2):
        got = list(loader)
        assert len(got) == 3
        assert all(equal(a, b) for a, b in zip(got, plain, strict=True))
    alone = list(BatchLoader(data, batch_sampler=sampler))
    assert all(equal(a, b) for a, b in zip(alone, plain, strict=True))


def test_batches_that_are_kept_are_not_written_over():
    """More of them than a worker has segments: the others go another way."""
    data = SyntheticScenes(split="train", length=2, size=(8, 8))
    plain = collate([data[0]]), collate([data[1]])
    sampler = [[index % 2] for index in range(shared_batches._MOST + 6)]
    got = list(BatchLoader(data, batch_sampler=sampler, num_workers=1))
    assert all(equal(batch, plain[index % 2]) for index, batch in enumerate(got))


def test_a_segment_is_used_again_once_the_last_tensor_of_its_batch_is_gone(segments):
    samples = samples_of()
    first, second = (pack(samples[start : start + 2]) for start in (0, 2))
    assert first.segment.data_ptr() != second.segment.data_ptr()
    batch = first.unpack()
    assert batch.image.untyped_storage().data_ptr() == first.segment.data_ptr()  # no copy
    row, whole = batch.image[1, :, 3].numpy(), collate(samples[:2])
    del batch
    third = pack(samples[4:])
    assert third.place[1] == 2, "a row of the first batch is still there"
    assert (row == whole.image[1, :, 3].numpy()).all()
    del row
    fourth = pack(samples[1:3])
    assert fourth.segment.data_ptr() == first.segment.data_ptr()
    assert equal(fourth.unpack(), collate(samples[1:3]))
    assert equal(second.unpack(), collate(samples[2:4]))
    assert len(segments) == 3


def test_batches_of_other_sizes_and_tasks(segments):
    small, large = samples_of(2, (16, 16)), samples_of(2, (40, 48))
    partial = Sample(small[1].image, {"depth": small[1].labels["depth"]}, small[1].meta)
    unlabelled = Sample(small[1].image, {}, small[1].meta)
    groups = [small, large, [small[0], partial], [partial, small[0]], [partial], [unlabelled]]
    for group in groups:
        assert equal(pack(group).unpack(), collate(group))
    assert len(segments) == 1


def test_samples_that_do_not_fit_together_leave_the_segment_free(segments):
    with pytest.raises(ValueError, match="has shape"):
        pack([samples_of(1, (16, 16))[0], samples_of(1, (24, 16))[0]])
    pack(samples_of(1))
    assert len(segments) == 1


def test_batches_that_nobody_received_do_not_fill_the_memory(segments):
    samples = samples_of(2)
    for _ in range(shared_batches._MOST):
        pack(samples)
    assert equal(pack(samples), collate(samples))
    assert len(segments) == shared_batches._MOST


def test_a_forked_process_does_not_release_what_its_parent_reads(segments):
    batch = pack(samples_of(2)).unpack()
    child = os.fork()
    if child == 0:
        del batch
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert segments[0][0] == 1
    del batch
    assert segments[0][0] == 0


def test_outside_a_worker_nothing_is_packed():
    samples = samples_of(2)
    assert equal(collate_shared(samples), collate(samples))


class TwoSizes(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return SyntheticScenes(split="train", length=5, size=((16, 24), (24, 16))[index in (1, 4)])[index]

    def __len__(self):
        return 5


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_several_sizes_are_a_batch_for_each_size(workers):
    data = TwoSizes()
    options = {"batch_size": 3, "num_workers": workers}
    with pytest.raises(ValueError, match="has shape"):
        list(BatchLoader(data, **options))
    found = list(BatchLoader(data, by_shape=True, **options))
    expected = [[0, 2], [1], [3], [4]]
    assert len(found) == len(expected)
    for batch, indices in zip(found, expected, strict=True):
        assert equal(batch, collate([data[index] for index in indices]))
