"""Confidence of an image in closed form, and its invariances; running moments against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtvision.protocols.tasks import depth, edge, instance, normals, saliency, semseg
from mtvision.steps.confidence import true_confidence
from mtvision.steps.data_map import DataMap


def test_class_maps_give_the_mean_probability_of_the_true_class():
    logits = torch.log(torch.tensor([0.2, 0.3, 0.5]))[None, :, None, None].expand(2, 3, 1, 4)
    label = torch.tensor([[[0, 1, 2, 255]], [[255, 255, 255, 255]]])
    first, second = true_confidence(semseg(("a", "b", "c")), logits, label).tolist()
    assert first == pytest.approx((0.2 + 0.3 + 0.5) / 3)
    assert math.isnan(second)


@pytest.mark.parametrize("family", ["invpt", "survey"])
def test_saliency_with_one_and_two_logits_agree(family):
    z = torch.tensor([[1.0, -2.0]])[None]  # (1, 1, 2)
    task = saliency(family=family)
    logits = torch.stack([torch.zeros_like(z[0]), z[0]])[None] if task.out_channels == 2 else z[None]
    label = torch.tensor([[[1, 0]]])
    expected = (torch.tensor(1.0).sigmoid() + torch.tensor(2.0).sigmoid()) / 2
    assert true_confidence(task, logits, label).item() == pytest.approx(expected.item())


def test_boundaries_give_the_probability_of_what_is_there():
    logits = torch.tensor([0.0, 2.0, -1.0, 5.0])[None, None, None]
    label = torch.tensor([1.0, 1.0, 0.0, math.nan])[None, None, None]
    expected = (0.5 + 1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(-1))) / 3
    assert true_confidence(edge(), logits, label).item() == pytest.approx(expected)


def test_values_exact_constant_and_in_between():
    label = torch.tensor([1.0, 3.0, math.nan, 5.0])[None, None, None]  # mean 3, Σ|d - 3| = 4
    for prediction, expected in (
        ([1.0, 3.0, 99.0, 5.0], 1.0),
        ([3.0, 3.0, 99.0, 3.0], math.exp(-1)),
        ([2.0, 3.0, 99.0, 4.0], math.exp(-0.5)),
    ):
        found = true_confidence(depth(), torch.tensor(prediction)[None, None, None], label)
        assert found.item() == pytest.approx(expected)


def test_values_do_not_depend_on_unit_and_origin():
    generator = torch.Generator().manual_seed(0)
    label = 1 + torch.rand(4, 1, 5, 6, generator=generator)
    guess = label + 0.1 * torch.randn(4, 1, 5, 6, generator=generator)
    metres = true_confidence(depth(), guess, label)
    feet = true_confidence(depth(), 3.28 * guess + 1, 3.28 * label + 1)
    torch.testing.assert_close(metres, feet, rtol=1e-4, atol=0)
    assert metres.std() > 0


def test_normals_are_compared_as_unit_vectors():
    label = torch.nn.functional.normalize(torch.randn(2, 3, 4, 4), dim=1)
    found = true_confidence(normals(), 7 * label, label)
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64), rtol=1e-5, atol=0)


def test_instances_have_no_confidence():
    with pytest.raises(ValueError, match="leave the task out"):
        true_confidence(instance(("car",)), torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))


def test_running_moments_equal_numpys_and_survive_saving(tmp_path):
    rng = np.random.default_rng(0)
    values = {name: 1e6 + rng.random(n) for name, n in (("x", 2), ("y", 50), ("z", 1))}
    recorded = DataMap()
    for name, series in values.items():
        for value in (*series, math.nan):
            recorded.add("depth", name, value)
    torch.save(recorded.state(), tmp_path / "state.pth")
    again = DataMap.from_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert again.moments == recorded.moments
    mean, std = again.mean_and_std("depth", ["x", "y"]).tolist()
    np.testing.assert_allclose(mean, [values[name].mean() for name in "xy"], rtol=1e-14)
    np.testing.assert_allclose(std, [values[name].std(ddof=1) for name in "xy"], rtol=1e-9)
    assert recorded.mean_and_std("depth", ["z"])[1].item() == 0
    assert recorded.images(["depth"]) == ["x", "y", "z"]
    assert recorded.images(["depth"], least=2) == ["x", "y"]
    assert recorded.images(["depth", "semseg"]) == []
