"""Tasks of other names take the labels of a data set with fixed names."""

import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import DATASETS
from mtvision.data.manifest import scored_data
from mtvision.protocols import own_protocol

SCENES = {"type": "SyntheticScenes", "size": (24, 32), "length": 2}
TASKS = {"near": {"type": "depth", "max_depth": 3}, "far": {"type": "depth"}, "edge": {}}


def renamed(names, run=None, **options):
    config = {"type": "RenamedLabels", "dataset": SCENES, "names": names, "tasks": run, **options}
    return DATASETS.build(config, protocol=own_protocol("x", TASKS), seed=0)


def test_one_label_feeds_two_tasks():
    data = renamed({"near": "depth", "far": "depth"}, split="val")
    plain = DATASETS.build(
        {**SCENES, "split": "val"}, protocol=own_protocol("x", {"depth": {}, "edge": {}}), seed=0
    )
    assert data.ids == plain.ids == ["val-000000", "val-000001"]
    for index in range(2):
        sample, expected = data[index], plain[index]
        assert list(sample.labels) == ["near", "far", "edge"]
        assert torch.equal(sample.image, expected.image)
        for name, label in {"near": "depth", "far": "depth", "edge": "edge"}.items():
            torch.testing.assert_close(sample.labels[name], expected.labels[label], equal_nan=True)
    alone = renamed({"near": "depth", "far": "depth"}, run=["near"], split="val")
    assert scored_data(alone)["fingerprint"] == scored_data(data)["fingerprint"]
    assert scored_data(alone)["labels"]["near"] == scored_data(data)["labels"]["near"]
    other = renamed({"near": "edge", "far": "depth"}, split="val")
    assert scored_data(other)["labels"]["near"] != scored_data(data)["labels"]["near"]


def test_a_part_of_the_tasks():
    data = renamed({"near": "depth", "far": "depth"}, run=["far"])
    assert list(data[0].labels) == ["far"]
    data.dataset.remarks = lambda: ["left out"]
    assert data.remarks() == ["left out"]
    assert data.source(0, "far") == data.dataset.source(0, "depth")
    assert data.dataset.protocol.task_names == ("depth",)


def test_transforms_inside_are_refused_and_a_data_set_need_not_have_splits(monkeypatch):
    with pytest.raises(ValueError, match="transforms, which would not run"):
        renamed({"near": "depth"}, dataset={**SCENES, "transforms": "light"})

    class Whole(DATASETS["SyntheticScenes"]):
        def __init__(self, *, protocol, seed):
            super().__init__(size=(24, 32), length=2, protocol=protocol, seed=seed)

    monkeypatch.setitem(DATASETS, "Whole", Whole)
    assert len(renamed({"near": "depth", "far": "depth"}, dataset={"type": "Whole"})) == 2


def test_names_that_do_not_exist():
    with pytest.raises(UnknownNameError, match="Unknown task in names 'nera'. Did you mean 'near'"):
        renamed({"nera": "depth"})
    with pytest.raises(UnknownNameError, match="Unknown label of the synthetic scenes 'near'"):
        renamed({"far": "depth"})
    with pytest.raises(UnknownNameError, match="Unknown label of the synthetic scenes 'dept'.*'depth'"):
        renamed({"near": "depth", "far": "dept"})
