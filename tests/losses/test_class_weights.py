"""Class weights of the cross-entropy against torch's own, whole and in parts."""

from __future__ import annotations

import data_problems as problems
import pytest
import torch
from torch.nn import functional as F

from mtvision.core.registry import LOSSES
from mtvision.engine.building import tasks_with_losses
from mtvision.losses import CrossEntropyLoss
from mtvision.losses.task_losses import TaskLosses
from mtvision.protocols import own_protocol
from mtvision.testing import check_loss

WEIGHTS = [0.3, 2.5, 1.0, 0.0]
PROTOCOL = own_protocol("four", {"semseg": {"class_names": ["a", "b", "c", "d"]}, "depth": {}})


def drawn(seed=0, size=(5, 4, 6, 7)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator, dtype=torch.float64)
    label = torch.randint(4, (size[0], *size[2:]), generator=generator)
    return logits, label.masked_fill(torch.rand(label.shape, generator=generator) < 0.3, 255)


@pytest.mark.parametrize("seed", range(5))
@problems.CLASS_WEIGHTS
def test_equals_torch(seed):
    logits, label = drawn(seed)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    value = CrossEntropyLoss(WEIGHTS)(ours, label)
    expected = F.cross_entropy(theirs, label, torch.tensor(WEIGHTS, dtype=torch.float64), ignore_index=255)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-18)


def test_equal_weights_are_none():
    logits, label = drawn()
    torch.testing.assert_close(CrossEntropyLoss([2.0] * 4)(logits, label), CrossEntropyLoss()(logits, label))


def test_parts_with_other_classes_add_up_to_the_whole():
    """The divisor is the sum of weights over all parts: a mean of means would be another number."""
    logits, label = drawn()
    label[0] = 1  # parts differ in classes, and so in weight per pixel
    label[1] = 0
    loss = CrossEntropyLoss(WEIGHTS)
    counts = loss.counts(label)
    parts = [slice(0, 1), slice(1, 2), slice(2, 5)]
    torch.testing.assert_close(sum(loss.counts(label[part]) for part in parts), counts, rtol=1e-14, atol=0)
    shares = [loss(logits[part], label[part], counts) for part in parts]
    torch.testing.assert_close(sum(shares), loss(logits, label), rtol=1e-13, atol=0)
    means = [loss(logits[part], label[part]) for part in parts]
    assert not torch.isclose(sum(means) / 3, loss(logits, label), rtol=1e-3)


def test_only_classes_of_weight_zero_cost_nothing():
    logits, _ = drawn()
    logits.requires_grad_()
    value = CrossEntropyLoss(WEIGHTS)(logits, torch.full((5, 6, 7), 3))
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_keeps_the_promises_of_losses():
    """All but one: halves with as many pixels need not have as much weight."""
    skip = {"halves_average_to_the_whole": "the divisor is the sum of weights"}
    assert check_loss(lambda: CrossEntropyLoss([0.5, 1.0, 2.0]), skip=skip).ok


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
@problems.CLASS_WEIGHTS
def test_impossible_weights(weights):
    with pytest.raises(ValueError, match=r"every weight must be a number of at least 0, and one must be"):
        CrossEntropyLoss(weights)


@problems.CLASS_WEIGHTS
def test_as_many_weights_as_classes():
    right = tasks_with_losses(PROTOCOL, {"semseg": {"class_weights": WEIGHTS}})
    assert TaskLosses(right).losses["semseg"].class_weights == tuple(WEIGHTS)
    wrong = tasks_with_losses(PROTOCOL, {"semseg": {"class_weights": [1.0, 2.0, 3.0]}})
    with pytest.raises(ValueError, match="3 class_weights for the 4 classes of semseg"):
        TaskLosses(wrong)


def test_a_config_with_words_for_weights_is_refused_before_anything_is_built():
    LOSSES.check_config({"type": "CrossEntropyLoss", "class_weights": [1, 2.5]})
    with pytest.raises(ValueError, match="class_weights must be a list of numbers of at least 0"):
        LOSSES.check_config({"type": "CrossEntropyLoss", "class_weights": "inverse"})
