"""Random images, images selected by id, and the search for labels of every task."""

from __future__ import annotations

import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.random import is_held_out
from mtvision.data import HeldOutImages, RandomImages, SelectedImages
from mtvision.losses.loss import labelled
from mtvision.protocols import PROTOCOLS
from mtvision.recipe.data import first_labelled, require_labels

WHOLE = {"type": "RandomImages", "length": 9, "size": (24, 32)}


class Gaps(RandomImages):
    """The last image alone has depth; edges have no labelled pixel at all."""

    def __init__(self, **options):
        super().__init__(length=9, protocol=PROTOCOLS["synthetic-scenes"], **options)
        self.opened = []

    def read(self, index):
        self.opened.append(index)
        raw = super().read(index)
        if index < 8:
            raw.labels.pop("depth", None)
        if "edge" in raw.labels:
            raw.labels["edge"][:] = float("nan")
        return raw


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_random_images_have_labels_of_every_task_of_every_protocol(name):
    dataset = RandomImages(protocol=PROTOCOLS[name], size=(24, 32), missing=0.2)
    for sample in (dataset[0], dataset[1]):
        assert set(sample.labels) == set(dataset.tasks)
        for label in sample.labels.values():
            share = labelled(label).float().mean()
            assert 0.6 < share < 0.95
    assert not torch.equal(dataset[0].image, dataset[1].image)


def test_splits_differ():
    first, second = (RandomImages(protocol=PROTOCOLS["nyud-invpt"], split=name) for name in ("train", "val"))
    assert not torch.equal(first[0].image, second[0].image)


@pytest.mark.parametrize("options", [{"length": 0}, {"size": (0, 3)}])
def test_sizes_are_positive(options):
    with pytest.raises(ValueError, match="must be positive"):
        RandomImages(protocol=PROTOCOLS["nyud-invpt"], **options)


def test_selected_images_are_those_of_the_whole_set():
    protocol = PROTOCOLS["nyud-invpt"]
    whole = RandomImages(length=9, size=(24, 32), protocol=protocol)
    part = SelectedImages(dataset=WHOLE, ids=["random_train_7", "random_train_2"], protocol=protocol)
    assert part.ids == ["random_train_2", "random_train_7"]
    assert torch.equal(part[1].image, whole[7].image)


def test_selected_images_take_other_transforms():
    part = SelectedImages(
        dataset=WHOLE,
        ids=["random_train_0"],
        protocol=PROTOCOLS["nyud-invpt"],
        transforms=[{"type": "RandomCrop", "size": (8, 16)}],
    )
    assert part[0].image.shape == (3, 8, 16)


def test_an_id_that_is_not_there_is_named():
    with pytest.raises(UnknownNameError, match="image of split 'train' 'random_train_9'"):
        SelectedImages(dataset=WHOLE, ids=["random_train_9"], protocol=PROTOCOLS["nyud-invpt"])


def test_the_held_out_slice_and_the_rest_part_the_images():
    protocol = PROTOCOLS["nyud-invpt"]
    whole = RandomImages(length=9, size=(24, 32), protocol=protocol)
    held, rest = (
        HeldOutImages(dataset=WHOLE, part=part, held_out=0.4, protocol=protocol)
        for part in ("held_out", "rest")
    )
    assert sorted([*held.ids, *rest.ids]) == sorted(whole.ids)
    assert all(is_held_out(name, 0.4) for name in held.ids)
    assert torch.equal(held[0].image, whole[whole.ids.index(held.ids[0])].image)


def test_labels_are_looked_for_until_every_task_has_some():
    dataset = Gaps(tasks=["semseg", "normals"])
    assert first_labelled(dataset) == {"semseg": 0, "normals": 0}
    assert dataset.opened == [0]


def test_all_images_are_read_before_a_task_is_said_to_have_no_label():
    dataset = Gaps()
    found = first_labelled(dataset)
    assert found["depth"] == 8
    assert "edge" not in found
    assert sorted(dataset.opened) == list(range(9))
    with pytest.raises(ValueError, match=r"val_data: no labelled pixel of edge in any of 9 images"):
        require_labels("val_data", dataset)


def test_only_so_many_images_are_read():
    dataset = Gaps()
    assert "depth" not in first_labelled(dataset, 3)
    assert len(dataset.opened) == 3
