"""Raw samples, samples, batches: dtypes, axes, missing labels, memory, errors."""

import math
import warnings

import numpy as np
import pytest
import torch

from mtvision.core.sample import Batch, Meta, RawSample, Sample, SampleKey, collate
from mtvision.core.task import IGNORE
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = {task.name: task for task in (semseg(["a", "b"]), depth(), normals())}


def meta(name: str = "x") -> Meta:
    return Meta(id=name, size=(2, 3), original_size=(2, 3))


def raw(**labels) -> RawSample:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    return RawSample(image=image, labels=labels, tasks=TASKS, meta=meta())


def sample(name: str, image=None, **labels) -> Sample:
    return Sample(torch.zeros(3, 2, 3) if image is None else image, labels, meta(name))


def test_from_raw_gives_the_contracts_axes_and_dtypes():
    vectors = np.random.rand(2, 3, 3)
    result = Sample.from_raw(raw(semseg=np.array([[0, 1, 255]] * 2, dtype=np.uint8), normals=vectors))
    assert result.image.dtype == result.labels["normals"].dtype == torch.float32
    assert result.image.shape == (3, 2, 3)
    assert result.image[2, 1, 0] == 11  # channel 2 of row 1, column 0
    assert result.labels["semseg"].dtype == torch.int64
    assert result.labels["semseg"].tolist() == [[0, 1, 255]] * 2
    np.testing.assert_allclose(result.labels["normals"].numpy(), vectors.transpose(2, 0, 1), rtol=1e-6)


def test_from_raw_takes_read_only_arrays_and_shares_no_memory():
    array = np.ones((2, 3, 1), dtype=np.float32)
    array.flags.writeable = False  # as from np.load(mmap_mode="r") or PIL
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = Sample.from_raw(raw(depth=array))
    result.labels["depth"].zero_()
    assert (array == 1).all()


def test_with_copies():
    first = raw()
    second = first.with_(labels={"depth": np.ones((2, 3, 1))})
    assert first.labels == {}
    assert second.image is first.image


def test_collate_fills_missing_labels_so_that_losses_skip_them():
    classes, metres = torch.ones(2, 3, dtype=torch.int64), torch.ones(1, 2, 3)
    batch = collate([sample("a", semseg=classes), sample("b", depth=metres), sample("c")])
    assert batch.ids == ["a", "b", "c"]
    assert len(batch) == 3
    assert list(batch.labels) == ["depth", "semseg"]
    assert batch.present["semseg"].tolist() == [True, False, False]
    assert batch.present["depth"].tolist() == [False, True, False]
    assert torch.equal(batch.labels["semseg"][0], classes)
    assert (batch.labels["semseg"][1:] == IGNORE).all()
    assert [math.isnan(item[0, 0, 0]) for item in batch.labels["depth"]] == [True, False, True]


def test_a_task_that_nobody_has_is_an_absent_key():
    batch = collate([sample("a"), sample("b")])
    assert batch.labels == batch.present == {}


@pytest.mark.parametrize("what", ["image", "depth"])
def test_other_shapes_name_both_samples(what):
    if what == "image":
        samples = [sample("small"), sample("large", image=torch.zeros(3, 4, 6))]
    else:
        samples = [sample("small", depth=torch.zeros(1, 2, 3)), sample("large", depth=torch.zeros(1, 4, 6))]
    with pytest.raises(
        ValueError, match=f"{what}: sample 'large' has shape .* but 'small' has .*Crop, pad or resize"
    ):
        collate(samples)


def test_label_size():
    assert collate([sample("a")]).label_size == (2, 3)
    assert collate([sample("a", depth=torch.zeros(1, 8, 12))]).label_size == (8, 12)  # Cityscapes


def test_to_copies_and_keeps_everything():
    batch = collate([sample("a", depth=torch.zeros(1, 2, 3))])
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert {t.device.type for t in (moved.image, *moved.labels.values(), *moved.present.values())} == {"meta"}
    assert moved.meta is batch.meta
    assert batch.image.device.type == "cpu"


def test_sample_key_is_a_value():
    assert SampleKey(1, 2) == SampleKey(1, 2)
    assert len({SampleKey(1, 2), SampleKey(1, 2), SampleKey(2, 1)}) == 2
