"""Order, sharding and resuming of the samplers."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from mtvision.core.sample import SampleKey
from mtvision.data.samplers import EvalBatchSampler, PositionBatchSampler


def take(sampler, count):
    return list(islice(iter(sampler), count))


@given(st.integers(8, 50), st.integers(0, 5))
def test_two_ranks_of_four_see_what_one_of_eight_sees(length, seed):
    one = take(PositionBatchSampler(length, 8, seed=seed), 12)
    ranks = [take(PositionBatchSampler(length, 4, seed=seed, rank=r, world_size=2), 12) for r in (0, 1)]
    assert one == [first + second for first, second in zip(*ranks, strict=True)]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 3))
def test_an_epoch_has_no_image_twice(length, batch, world):
    if length < batch * world:
        return
    samplers = [PositionBatchSampler(length, batch, rank=r, world_size=world) for r in range(world)]
    count = samplers[0].batches_per_epoch
    assert count == length // (batch * world)
    for epoch in range(3):
        keys = [key for sampler in samplers for k in range(count) for key in sampler.batch(epoch * count + k)]
        assert {key.epoch for key in keys} == {epoch}
        assert len({key.index for key in keys}) == len(keys) == count * batch * world


@given(st.integers(0, 40))
def test_starting_later_equals_having_run(start):
    sampler = PositionBatchSampler(11, 3, seed=4)
    everything = take(sampler, start + 7)
    sampler.start_batch = start
    assert take(sampler, 7) == everything[start:]
    assert [sampler.batch(start + k) for k in range(7)] == everything[start:]


def test_orders_differ_between_epochs_and_seeds():
    def epoch(number, seed):
        sampler = PositionBatchSampler(30, 30, seed=seed)
        return [key.index for key in sampler.batch(number)]

    assert epoch(0, 0) != epoch(1, 0) != epoch(0, 1) != epoch(0, 0)
    assert sorted(epoch(2, 5)) == list(range(30))
    assert epoch(3, 5) == epoch(3, 5)


@given(st.integers(0, 30), st.integers(1, 5), st.integers(1, 4))
def test_evaluation_covers_every_image_once(length, batch, world):
    shards = [EvalBatchSampler(length, batch, rank=r, world_size=world) for r in range(world)]
    batches = [item for shard in shards for item in shard]
    assert sorted(key.index for item in batches for key in item) == list(range(length))
    assert all(key.epoch == 0 for item in batches for key in item)
    assert [len(list(shard)) for shard in shards] == [len(shard) for shard in shards]
    alone = list(EvalBatchSampler(length, batch))
    assert [list(shard) for shard in shards] == [alone[rank::world] for rank in range(world)]


def test_loader_receives_keys_and_decodes_nothing_on_resume():
    read = []

    class Recorder(Dataset):
        def __getitem__(self, key: SampleKey) -> int:
            read.append(key)
            return key.index

    sampler = PositionBatchSampler(10, 2, start_batch=1000)
    batches = iter(DataLoader(Recorder(), batch_sampler=sampler, collate_fn=list))
    assert len(next(batches)) == 2
    assert [key.epoch for key in read] == [200, 200]


def test_errors():
    with pytest.raises(ValueError, match=r"4 \* 2 images, the data set has 7"):
        PositionBatchSampler(7, 4, world_size=2)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        EvalBatchSampler(7, 0)
    with pytest.raises(ValueError, match="rank"):
        EvalBatchSampler(7, 1, rank=2, world_size=2)
