"""The one-map encoding of instances, and grouping pixels around centres."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtvision.core.instances import OFFSET_UNIT, encode_instances, group_instances, instance_classes
from mtvision.core.prediction import to_prediction
from mtvision.losses.instance import instance_targets
from mtvision.protocols.tasks import instance


def label_of(*boxes, size=(24, 40)):
    """Boxes (class, top, left, height, width), later ones in front."""
    classes, ids = np.full(size, -1), np.zeros(size, dtype=int)
    for number, (category, top, left, height, width) in enumerate(boxes, start=1):
        window = np.s_[top : top + height, left : left + width]
        classes[window], ids[window] = category, number
    return torch.from_numpy(encode_instances(classes, ids)).long()


def perfect_logits(label, classes):
    """What a perfect network says about a label."""
    heat, offset = instance_targets(label, (2.0, 8.0))
    scores = 30 * F.one_hot(instance_classes(label), classes + 1).permute(2, 0, 1)
    return torch.cat([scores, heat[None], offset / OFFSET_UNIT]).float()[None]


BOXES = ((0, 2, 2, 8, 8), (1, 12, 3, 10, 12), (0, 3, 22, 9, 10), (0, 4, 33, 8, 7))


def test_encoding_numbers_instances_per_class():
    classes = np.array([[-1, 0, 0], [2, 2, 0]])
    ids = np.array([[5, 70000, 3], [3, 3, 3]])
    assert encode_instances(classes, ids).tolist() == [[0, 257, 256], [768, 768, 256]]
    found = instance_classes(torch.tensor([0, 255, 256, 511, 768]))
    assert found.tolist() == [0, 255, 1, 1, 3]


def test_encoding_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="257 instances of class 0"):
        encode_instances(np.zeros((1, 257), dtype=int), np.arange(257)[None])
    with pytest.raises(ValueError, match="thing class 254"):
        encode_instances(np.full((1, 1), 254), np.zeros((1, 1), dtype=int))


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_perfect_logits_give_back_the_instances(zoom):
    label = label_of(*BOXES)
    logits = perfect_logits(label, 2)
    if zoom != 1:  # as if the network had seen an image half as large
        label = label.repeat_interleave(2, 0).repeat_interleave(2, 1)
        smooth = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        logits = logits.repeat_interleave(2, 2).repeat_interleave(2, 3)
        logits[:, -3] = smooth[:, -3]
    ids, confidence = group_instances(logits, zoom)[0]
    for item in torch.unique(label).tolist():
        inside = ids[label == item]
        assert len(torch.unique(inside)) == 1
        assert int(inside[0]) // 256 == item // 256
    assert len(torch.unique(ids)) == len(torch.unique(label))
    assert bool((confidence[label == 0] == 0).all())
    assert float(confidence[label > 0].min()) > 0.9


def test_two_equal_neighbours_are_told_apart_by_their_offsets():
    label = label_of((0, 5, 5, 8, 8), (0, 5, 13, 8, 8))
    ids = group_instances(perfect_logits(label, 1))[0, 0]
    left, right = ids[5:13, 5:13], ids[5:13, 13:21]
    assert left.unique().numel() == right.unique().numel() == 1
    assert int(left[0, 0]) != int(right[0, 0])


def test_confidence_is_probability_times_height():
    logits = perfect_logits(label_of((0, 5, 5, 9, 9)), 1)
    logits[:, -3] *= 0.5
    logits[:, :2] /= 30
    confidence = group_instances(logits)[0, 1]
    expected = 0.5 * torch.tensor([0.0, 1.0]).softmax(0)[1]
    assert confidence.max().item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_centre_above_1_is_one_centre():
    logits = perfect_logits(label_of((0, 5, 5, 9, 9)), 1)
    logits[:, -3] *= 4
    found = group_instances(logits)[0]
    assert found[0].unique().tolist() == [0, 256]
    assert float(found[1].max()) == 1


def test_no_centre_or_no_thing_is_no_instance():
    label = label_of((0, 5, 5, 9, 9))
    for change in (np.s_[:, -3], np.s_[:, 1]):
        logits = perfect_logits(label, 1)
        logits[change] = -5
        assert not group_instances(logits).any()
    assert not group_instances(torch.zeros(2, 5, 8, 9)).any()


def test_prediction_leaves_logits_alone_and_batches_do_not_matter():
    task = instance(["a", "b"])
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, task.out_channels, 20, 30, generator=generator)
    before = logits.clone()
    together = to_prediction(task, logits)
    assert together.dtype == torch.float32
    assert torch.equal(logits, before)
    assert torch.equal(together, torch.cat([to_prediction(task, item[None]) for item in logits]))
    assert int((together[:, 0] % 256).max()) < 100
    with pytest.raises(ValueError, match="expected K"):
        group_instances(torch.zeros(1, 4, 3, 3))
