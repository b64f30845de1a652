"""The instance loss against slow, obvious code."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mtvision.core.registry import LOSSES
from mtvision.losses.instance import InstanceLoss, instance_targets
from mtvision.protocols.tasks import instance


def random_label(seed, size=(14, 18)):
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(size, dtype=torch.long)
    for item in (256, 257, 512):
        top, left = (int(torch.randint(0, side - 4, (), generator=generator)) for side in size)
        label[top : top + 6, left : left + 5] = item
    label[:2, 3:9] = 255
    return label


def slow_targets(label, sigma):
    heat, offset = torch.zeros(label.shape), torch.zeros(2, *label.shape)
    for item in torch.unique(label[label >= 256]).tolist():
        pixels = (label == item).nonzero().double()
        row, column = pixels.mean(dim=0).tolist()
        spread = min(max(math.sqrt(len(pixels)) / 8, sigma[0]), sigma[1])
        for y in range(label.shape[0]):
            for x in range(label.shape[1]):
                squared = (y - row) ** 2 + (x - column) ** 2
                if squared <= (3 * spread) ** 2:
                    heat[y, x] = max(float(heat[y, x]), math.exp(-squared / (2 * spread**2)))
                if int(label[y, x]) == item:
                    offset[:, y, x] = torch.tensor([row - y, column - x])
    return heat, offset


@pytest.mark.parametrize("seed", range(4))
def test_targets_equal_slow_ones(seed):
    label = random_label(seed)
    heat, offset = instance_targets(label, (1.0, 8.0))
    slow_heat, slow_offset = slow_targets(label, (1.0, 8.0))
    assert torch.allclose(offset, slow_offset, atol=1e-6)
    assert float((heat - slow_heat).abs().max()) <= math.exp(-9 / 2)  # corners of the square window
    near = slow_heat > 0
    assert torch.allclose(heat[near], slow_heat[near], atol=1e-6)


@pytest.mark.parametrize("hardest", [1.0, 0.25])
def test_value_equals_the_formula(hardest):
    label = torch.stack([random_label(5), random_label(6)])
    logits = torch.randn(2, 6, 14, 18, generator=torch.Generator().manual_seed(0))
    loss = InstanceLoss(heat_weight=3.0, offset_weight=0.5, hardest=hardest)(logits, label)
    values, squares, valid, offsets, inside = [], 0.0, 0, 0.0, 0
    for z, item in zip(logits, label, strict=True):
        heat, offset = instance_targets(item, (2.0, 8.0))
        for y in range(14):
            for x in range(18):
                if int(item[y, x]) == 255:
                    continue
                valid += 1
                values.append(-float(z[:3, y, x].log_softmax(0)[int(item[y, x]) // 256]))
                squares += float(z[3, y, x] - heat[y, x]) ** 2
                if int(item[y, x]) >= 256:
                    inside += 1
                    offsets += float((32 * z[4:, y, x] - offset[:, y, x]).abs().sum())
    kept = sorted(values, reverse=True)[: round(hardest * valid)]
    expected = sum(kept) / len(kept) + 3 * squares / valid + 0.5 * offsets / inside
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_flip_of_image_and_label_changes_offsets_sign_and_nothing_else():
    label = random_label(2)
    heat, offset = instance_targets(label, (2.0, 8.0))
    flipped_heat, flipped = instance_targets(label.flip(1), (2.0, 8.0))
    assert torch.allclose(flipped_heat, heat.flip(1), atol=0.012)  # the window's rounding, at 3 sigma
    assert torch.allclose(flipped, offset.flip(2) * torch.tensor([1.0, -1.0])[:, None, None], atol=1e-5)


def test_no_labelled_pixel_is_an_exact_zero_with_a_graph():
    logits = torch.full((1, 6, 5, 5), torch.nan, requires_grad=True)
    loss = InstanceLoss()(logits, torch.full((1, 5, 5), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(1, 6, 5, 5))


def test_ignored_pixels_have_no_gradient_and_gradients_are_those_of_finite_differences():
    label = random_label(3)[None]
    logits = torch.randn(1, 6, 14, 18, dtype=torch.float64, requires_grad=True)
    loss = InstanceLoss(heat_weight=1.0, hardest=1.0)
    loss(logits, label).backward()
    assert not logits.grad[0, :, label[0] == 255].any()
    small = torch.randn(1, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    tiny = torch.zeros(1, 4, 5, dtype=torch.long)
    tiny[0, 1:3, 1:4] = 256
    assert torch.autograd.gradcheck(lambda z: loss(z, tiny), small)


def test_background_alone_is_a_plain_cross_entropy():
    logits = torch.randn(1, 5, 6, 7)
    logits[:, 2:] = 0
    loss = InstanceLoss(hardest=1.0)(logits, torch.zeros(1, 6, 7, dtype=torch.long))
    expected = F.cross_entropy(logits[:, :2], torch.zeros(1, 6, 7, dtype=torch.long))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_registered_and_explains_mistakes():
    task = instance(["person", "car"])
    assert isinstance(LOSSES.build(task.loss), InstanceLoss)
    assert task.out_channels == 6
    with pytest.raises(ValueError, match="K thing classes"):
        InstanceLoss()(torch.zeros(1, 4, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="hardest"):
        InstanceLoss(hardest=0)
    with pytest.raises(ValueError, match="sigma"):
        InstanceLoss(sigma=(3.0, 1.0))
