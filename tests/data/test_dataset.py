"""The base class: determinism, validation, and errors that name the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.sample import Meta, RawSample, SampleKey
from mtvision.data.dataset import DenseDataset, check_count
from mtvision.data.transforms.geometry import RandomHorizontalFlip
from mtvision.data.transforms.photometric import Normalize
from mtvision.protocols import own_protocol

PROTOCOL = own_protocol("own", {"semseg": {"class_names": ["a", "b", "c"]}, "depth": {}}, splits={"train": 4})


class Toy(DenseDataset):
    """Four images; `labels` replaces those of image 0."""

    def __init__(self, labels=None, image=None, ids=("w", "x", "y", "z"), **options):
        self.changed, self.image = labels or {}, image
        super().__init__(ids=ids, **{"protocol": PROTOCOL, "split": "train", **options})

    def read(self, index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        labels = {
            "semseg": rng.integers(0, 3, (6, 8)).astype(np.uint8),
            "depth": rng.random((6, 8, 1)).astype(np.float32),
        }
        if index == 0:
            labels |= self.changed
            image = image if self.image is None else self.image
        kept = {name: label for name, label in labels.items() if name in self.tasks or name in self.changed}
        return RawSample(image, kept, self.tasks, Meta(self.ids[index], (6, 8), (6, 8)))

    def source(self, index, task=None):
        return f"/data/{task or 'image'}/{self.ids[index]}.png"


def test_a_sample_is_a_function_of_seed_epoch_and_index():
    dataset = Toy(transforms=[RandomHorizontalFlip(), Normalize()])
    first = {key: dataset[key].image for key in [SampleKey(e, i) for e in range(8) for i in range(4)]}
    for key in reversed(list(first)):
        torch.testing.assert_close(dataset[key].image, first[key], rtol=0, atol=0)
    torch.testing.assert_close(dataset[2].image, first[SampleKey(0, 2)], rtol=0, atol=0)
    assert any((first[SampleKey(e, 0)] != first[SampleKey(0, 0)]).any() for e in range(8))
    other = Toy(transforms=[RandomHorizontalFlip(), Normalize()], seed=1)
    assert any((other[SampleKey(e, 0)].image != first[SampleKey(e, 0)]).any() for e in range(8))


def test_types_and_tasks():
    sample = Toy()[1]
    assert sample.image.dtype == torch.float32
    assert sample.labels["semseg"].dtype == torch.int64
    assert sample.labels["depth"].shape == (1, 6, 8)
    assert list(Toy(tasks=["depth"])[1].labels) == ["depth"]
    assert Toy(tasks=["depth"]).protocol.task_names == ("depth",)
    with pytest.raises(UnknownNameError, match="semseg"):
        Toy(tasks=["semsg"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"semseg": np.full((6, 8), 7, np.uint8)},
            r"/data/semseg/w.png: class id 7 out of range.*0..2 and 255",
        ),
        ({"semseg": np.full((6, 8), -1, np.int64)}, r"/data/semseg/w.png: class id -1 out of range"),
        ({"semseg": np.zeros((6, 9), np.uint8)}, r"/data/semseg/w.png: the semseg label is 6x9.*'w': 6x8"),
        ({"semseg": np.zeros((6, 8), np.float32)}, r"/data/semseg/w.png: .*integer map"),
        ({"depth": np.zeros((6, 8, 3), np.float32)}, r"/data/depth/w.png: .*float32 map \(H, W, 1\)"),
        ({"depth": np.zeros((6, 8, 1), np.float64)}, r"/data/depth/w.png: .*float64"),
    ],
)
def test_bad_labels_name_the_file(labels, message):
    dataset = Toy(labels)
    with pytest.raises(ValueError, match=message):
        dataset[0]
    dataset[1]


def test_bad_image_and_unknown_label():
    with pytest.raises(ValueError, match=r"/data/image/w.png: the image has shape \(6, 8\)"):
        Toy(image=np.zeros((6, 8), np.uint8))[0]
    with pytest.raises(UnknownNameError, match="dpth"):
        Toy({"dpth": np.zeros((6, 8, 1), np.float32)})[0]


def test_labels_of_their_own_resolution():
    labels = {"semseg": np.zeros((12, 16), np.uint8), "depth": np.ones((12, 16, 1), np.float32)}
    dataset = Toy(labels)
    dataset.labels_match_image = False
    assert dataset[0].labels["semseg"].shape == (12, 16)
    dataset.changed = {"semseg": np.zeros((12, 16), np.uint8)}
    with pytest.raises(ValueError, match="the other labels"):
        dataset[0]


def test_number_of_images():
    with pytest.raises(ValueError, match=r"found 3 images, the protocol has 4; first missing: 'y'"):
        Toy(ids=("w", "x", "z"), announced=("w", "x", "y", "z"))
    with pytest.raises(ValueError, match=r"split 'train': found 1 images, the protocol has 4\. Complete"):
        Toy(ids=("w",))
    assert len(Toy(ids=("w",), split="other")) == 1
    assert len(Toy(ids=("w",), check_split=False)) == 1
    check_count("x", "train", ["a"], 1)


def test_other_errors():
    with pytest.raises(ValueError, match="'w' occurs twice"):
        Toy(ids=("w", "x", "w", "z"))
    with pytest.raises(ValueError, match="a protocol is needed"):
        Toy(protocol=None)
    with pytest.raises(IndexError):
        Toy()[4]
    assert len(list(Toy())) == 4
