"""Several data sets as one: ratios, order, ids, label sets."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample, SampleKey, collate
from mtvision.data import DenseDataset, JointDataset, data_manifest
from mtvision.data.manifest import scored_data
from mtvision.data.samplers import JointBatchSampler, whole_ratios
from mtvision.protocols import own_protocol

PROTOCOL = own_protocol("joint", {"semseg": {"class_names": ["a", "b"]}, "depth": {}})
LENGTHS = (5, 12, 3)
RATIOS = (2, 3, 1)


@DATASETS.register_module()
class JointToy(DenseDataset):
    """Images of one colour with every label that is asked for."""

    def __init__(self, *, length=4, **options):
        super().__init__(ids=[f"{index:03d}" for index in range(length)], **options)

    def read(self, index):
        labels = {"semseg": np.zeros((8, 8), np.uint8), "depth": np.full((8, 8, 1), 2, np.float32)}
        return RawSample(
            image=np.full((8, 8, 3), index, np.uint8),
            labels={name: label for name, label in labels.items() if name in self.tasks},
            tasks=self.tasks,
            meta=Meta(id=self.ids[index], size=(8, 8), original_size=(8, 8)),
        )


def sampler(batch_size=4, mixing="mixed", **options):
    return JointBatchSampler(LENGTHS, RATIOS, batch_size, mixing, **options)


def part_of(key: SampleKey) -> int:
    return int(np.searchsorted(np.cumsum(LENGTHS), key.index, side="right"))


def dataset(**options):
    parts = [
        {"type": "JointToy", "name": "rooms", "length": 6, "tasks": ["semseg"]},
        {"type": "JointToy", "name": "streets", "length": 3, "tasks": ["depth"]},
    ]
    protocol = options.pop("protocol", PROTOCOL)
    return DATASETS.build({"type": "JointDataset", "parts": parts, **options}, protocol=protocol, seed=3)


@pytest.mark.parametrize(
    ("given_ratios", "whole"), [([2, 1], (2, 1)), ([0.1, 0.2], (1, 2)), ([795, 4998, 795], (265, 1666, 265))]
)
def test_ratios_become_small_whole_numbers(given_ratios, whole):
    assert whole_ratios(given_ratios) == whole


@pytest.mark.parametrize("mixing", ["mixed", "homogeneous"])
def test_ratios_are_exact_over_a_cycle(mixing):
    batches = list(islice(sampler(mixing=mixing), 6 * 5))
    drawn = Counter(part_of(key) for batch in batches for key in batch)
    assert drawn == {part: ratio * 5 * 4 for part, ratio in enumerate(RATIOS)}


def test_mixed_batches_keep_the_ratio_within_one_image():
    for batch in islice(sampler(batch_size=6), 20):
        assert Counter(part_of(key) for key in batch) == {0: 2, 1: 3, 2: 1}
    for batch in islice(sampler(batch_size=4), 30):
        shares = Counter(part_of(key) for key in batch)
        assert all(abs(shares[part] - 4 * ratio / 6) <= 1 for part, ratio in enumerate(RATIOS))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_homogeneous_step_has_one_part_on_all_ranks(world):
    ranks = [sampler(2, "homogeneous", rank=rank, world_size=world) for rank in range(world)]
    parts = []
    for batches in islice(zip(*ranks, strict=True), 12):
        (part,) = {part_of(key) for batch in batches for key in batch}
        parts.append(part)
    assert parts[:6] == parts[6:]
    assert parts.count(1) == 6
    assert all(first != second for first, second in pairwise(parts) if first != 1)


@given(st.sampled_from(["mixed", "homogeneous"]), st.integers(0, 5))
def test_two_ranks_of_four_see_what_one_of_eight_sees(mixing, seed):
    one = islice(sampler(8, mixing, seed=seed), 9)
    ranks = [islice(sampler(4, mixing, seed=seed, rank=rank, world_size=2), 9) for rank in (0, 1)]
    assert list(one) == [first + second for first, second in zip(*ranks, strict=True)]


@given(st.sampled_from(["mixed", "homogeneous"]), st.integers(0, 60))
def test_starting_later_equals_having_run(mixing, start):
    whole = list(islice(sampler(5, mixing, seed=1), start + 4))
    later = sampler(5, mixing, seed=1, start_batch=start)
    assert list(islice(later, 4)) == whole[start:]


@pytest.mark.parametrize("mixing", ["mixed", "homogeneous"])
def test_each_part_passes_through_all_its_images_before_it_repeats(mixing):
    keys = [key for batch in islice(sampler(mixing=mixing), 60) for key in batch]
    for part, length in enumerate(LENGTHS):
        seen = Counter((key.epoch, key.index) for key in keys if part_of(key) == part)
        assert set(seen.values()) == {1}
        per_epoch = Counter(epoch for epoch, _ in seen)
        complete = sorted(per_epoch)[:-1]
        assert complete == list(range(len(complete)))
        assert {per_epoch[epoch] for epoch in complete} == {length}


def test_seeds_give_other_orders_and_one_rank_gets_every_part():
    assert sampler(seed=0).batch(0) != sampler(seed=1).batch(0)
    first = JointBatchSampler([50, 50], [1, 1], 1, rank=0, world_size=2)
    assert {key.index // 50 for batch in islice(first, 20) for key in batch} == {0, 1}


def test_ids_are_unique_and_name_the_part():
    joint = dataset()
    assert len(joint) == len(set(joint.ids)) == 9
    assert joint.ids[0] == "rooms/000"
    assert joint.ids[6] == "streets/000"
    assert [joint[index].meta.id for index in range(9)] == joint.ids


def test_samples_have_the_labels_of_their_part_and_batches_mark_them():
    joint = dataset()
    assert joint.protocol.task_names == ("semseg", "depth")
    batch = collate([joint[5], joint[6]])
    assert {name: flags.tolist() for name, flags in batch.present.items()} == {
        "semseg": [True, False],
        "depth": [False, True],
    }
    assert (batch.labels["semseg"][1] == 255).all()
    assert batch.labels["depth"][0].isnan().all()


def test_equal_images_of_two_parts_are_augmented_differently():
    parts = [{"type": "JointToy", "name": name, "length": 30, "transforms": "light"} for name in "ab"]
    joint = dataset(parts=parts)
    same = [bool((joint[index].image == joint[index + 30].image).all()) for index in range(30)]
    assert not all(same)


def test_default_ratios_are_the_sizes_and_the_batch_may_exceed_a_part():
    joint = dataset()
    assert joint.ratios == (2, 1)
    batch = joint.batch_sampler(9, seed=0).batch(0)
    assert Counter(key.index < 6 for key in batch) == {True: 6, False: 3}
    homogeneous = dataset(ratios=[1, 3], mixing="homogeneous").batch_sampler(8, seed=0)
    keys = [key for position in range(4) for key in homogeneous.batch(position)]
    assert sum(key.index >= 6 for key in keys) == 24
    assert max(key.epoch for key in keys if key.index >= 6) == 7


def test_one_transform_may_replace_those_of_all_parts():
    parts = [{"type": "JointToy", "name": "a", "transforms": "light"}]
    joint = dataset(parts=parts, transforms="tensor")
    assert len(joint.parts["a"].pipeline.transforms) == 1


def test_the_manifest_tells_apart_what_the_parts_offer():
    both = [{"type": "JointToy", "name": "a"}, {"type": "JointToy", "name": "b"}]
    fewer = [both[0], {**both[1], "tasks": ["depth"]}]
    assert data_manifest(dataset(parts=both))["hash"] != data_manifest(dataset(parts=fewer))["hash"]
    assert data_manifest(dataset())["hash"] == data_manifest(dataset(mixing="homogeneous"))["hash"]
    scored = [scored_data(dataset(parts=parts)) for parts in (both, fewer)]
    assert scored[0]["fingerprint"] == scored[1]["fingerprint"]
    assert scored[0]["labels"]["depth"] == scored[1]["labels"]["depth"]
    assert scored[0]["labels"]["semseg"] != scored[1]["labels"]["semseg"]


def test_splits_count_all_parts_together():
    counted = own_protocol(
        "joint", {"semseg": {"class_names": ["a", "b"]}, "depth": {}}, splits={"train": 9, "val": 4}
    )
    assert len(dataset(protocol=counted)) == 9
    with pytest.raises(ValueError, match="split 'val': found 9 images, the protocol has 4"):
        dataset(protocol=counted, split="val")


def test_a_single_task_run_leaves_out_parts_without_the_task(caplog):
    counted = own_protocol("joint", {"semseg": {"class_names": ["a", "b"]}, "depth": {}}, splits={"train": 9})
    only = counted.select(["depth"])
    joint = dataset(protocol=only, ratios=[2, 1])
    assert joint.ids == [f"streets/{index:03d}" for index in range(3)]
    assert set(joint[0].labels) == {"depth"}
    assert joint.ratios == (1,)
    assert "part 'rooms' has labels of semseg only" in caplog.text
    some = [{"type": "JointToy", "tasks": ["semseg", "depth"]}]
    assert dataset(protocol=PROTOCOL.select(["depth"]), parts=some).parts["JointToy"].protocol.task_names == (
        "depth",
    )
    with pytest.raises(UnknownNameError, match="Did you mean 'semseg'"):
        dataset(protocol=only, parts=[{"type": "JointToy", "tasks": ["semsg"]}])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratios": [1]}, ValueError, "2 parts but 1 ratios"),
        ({"ratios": [1, 0]}, ValueError, r"positive numbers, got \[1, 0\]"),
        ({"ratios": [0.123456789, 1]}, ValueError, "give short numbers"),
        ({"mixing": "homogenous"}, UnknownNameError, "Did you mean 'homogeneous'"),
        ({"parts": []}, ValueError, "parts is empty"),
        ({"parts": ["JointToy"]}, TypeError, "must be a config dict"),
        ({"parts": [{"type": "JointToy"}] * 2}, ValueError, "two parts are named 'JointToy'"),
        ({"parts": [{"type": "JointToy", "tasks": ["dept"]}]}, UnknownNameError, "Did you mean 'depth'"),
        ({"parts": [{"type": "JointToy", "tasks": ["depth"]}]}, ValueError, "no part has labels of semseg"),
        ({"parts": [{"type": "JointTy"}]}, UnknownNameError, "Did you mean 'JointToy'"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        dataset(**options)


def test_a_protocol_is_needed():
    with pytest.raises(ValueError, match="a protocol is needed"):
        JointDataset(parts=[{"type": "JointToy"}])
