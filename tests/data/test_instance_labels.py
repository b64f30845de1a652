"""Instance labels: from synthetic scenes, through every kind of transform, refused when damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mtvision.core.files.foreign import DecodeError
from mtvision.core.instances import BASE
from mtvision.core.sample import SampleKey, collate
from mtvision.data.dataset import check_instance_map
from mtvision.data.folder import FolderDataset
from mtvision.data.synthetic.dataset import SyntheticScenes
from mtvision.losses.instance import instance_targets
from mtvision.protocols import get_protocol, own_protocol
from mtvision.protocols.synthetic import SYNTHETIC_CLASSES
from mtvision.protocols.tasks import instance

PROTOCOL = get_protocol("synthetic-instances")


def scenes(**options):
    return SyntheticScenes(split="train", length=6, size=(40, 56), protocol=PROTOCOL, **options)


def test_every_object_of_a_thing_class_is_one_instance():
    dataset = scenes(instances=True)
    things = [SYNTHETIC_CLASSES.index(name) for name in PROTOCOL.task("instance").class_names]
    number = 0
    for index in range(6):
        raw = dataset.read(index)
        label, classes, ids = raw.labels["instance"], raw.labels["semseg"], raw.meta.extra["instances"]
        assert np.array_equal(label > 0, np.isin(classes, things))
        for item in np.unique(label[label > 0]):
            inside = label == item
            assert len(np.unique(ids[inside])) == 1
            assert set(classes[inside]) == {things[item // 256 - 1]}
            assert np.array_equal(ids == ids[inside][0], inside)
            number += 1
    assert number > 4


@pytest.mark.parametrize("size", [(40, 56), (64, 64)])
def test_transforms_move_instances_as_they_move_classes(size):
    recipe = [
        {"type": "RandomScale", "low": 0.6, "high": 1.7},
        {"type": "RandomCrop", "size": size},
        {"type": "RandomHorizontalFlip"},
        {"type": "Normalize"},
        {"type": "PadImage", "size": size},
    ]
    dataset = scenes(transforms=recipe)
    things = [SYNTHETIC_CLASSES.index(name) for name in PROTOCOL.task("instance").class_names]
    samples = [dataset[SampleKey(epoch, index)] for index in range(6) for epoch in range(3)]
    for sample in samples:
        label, classes = sample.labels["instance"], sample.labels["semseg"]
        assert torch.equal(label == 255, classes == 255)
        for category, thing in enumerate(things):
            assert torch.equal(label // 256 == category + 1, classes == thing)
        heat, offset = instance_targets(label, (2.0, 8.0))
        rows, columns = (label >= 256).nonzero(as_tuple=True)
        for item in torch.unique(label[label >= 256]):
            inside = label[rows, columns] == item
            target = torch.stack([rows, columns])[:, inside] + offset[:, rows[inside], columns[inside]]
            assert float(target.std(dim=1, correction=0).max()) < 1e-3  # all pixels point to one place
        assert 0 <= float(heat.min()) <= float(heat.max()) <= 1
    assert collate(samples).labels["instance"].dtype == torch.int64


def test_damaged_maps_are_refused():
    task = instance(["a", "b"])
    check_instance_map("here", task, np.array([[0, 255, 256, 767]], np.int32))
    for wrong in (768, 3, -1):
        with pytest.raises(ValueError, match=f"here: id {wrong} is neither"):
            check_instance_map("here", task, np.array([[0, wrong]], np.int32))
    with pytest.raises(ValueError, match="integer map"):
        check_instance_map("here", task, np.zeros((2, 2), np.float32))


def test_ids_beyond_32_bits_do_not_wrap_around(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "instance").mkdir()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "images/a.png")
    ids = np.full((4, 5), BASE, np.int64)
    ids[0, 0] += 2**32  # the same in 32 bits
    np.save(tmp_path / "instance/a.npy", ids)
    protocol = own_protocol("own", {"instance": {"class_names": ["a", "b"]}})
    data = FolderDataset(tmp_path, labels={"instance": "instance"}, protocol=protocol)
    with pytest.raises(DecodeError, match=rf"a\.npy: holds the instance id {BASE + 2**32}, expected at most"):
        data.read(0)
