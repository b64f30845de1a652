"""The constant predictor is the best constant, compared with a search over constants."""

from __future__ import annotations

import pytest
import torch

from mtvision.metrics import ConstantPredictor, build_metric
from mtvision.protocols.tasks import depth, edge, instance, normals, saliency, semseg


def test_majority_class_without_ignored_pixels():
    constant = ConstantPredictor(semseg(["a", "b", "c"]))
    constant.update(torch.tensor([[255, 255, 255, 2, 2, 1]]))
    constant.update(torch.tensor([[0, 1, 2]]))
    prediction = constant.prediction((2, 3))
    assert prediction.dtype == torch.int64
    assert prediction.tolist() == [[2, 2, 2]] * 2


def test_depth_constant_has_the_least_rmse():
    task, label = depth(), torch.rand(1, 8, 8) * 5 + 0.5
    label[0, :2] = torch.nan
    constant, metric = ConstantPredictor(task), build_metric(task)
    constant.update(label)
    best = metric.score(metric.measure(constant.prediction((8, 8)), label))["rmse"]
    others = [
        metric.score(metric.measure(torch.full((1, 8, 8), c), label))["rmse"]
        for c in torch.linspace(0.5, 5.5, 300).tolist()
    ]
    assert best <= min(others) + 1e-6
    assert best == pytest.approx(min(others), rel=1e-3)


@pytest.mark.slow
def test_normals_constant_has_the_least_mean_angle():
    generator = torch.Generator().manual_seed(0)
    task = normals()
    # Two thirds look one way, one third another: the median stays with the many, the mean lies between.
    ways = torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 0, 0]])
    label = ways[torch.randint(0, 3, (900,), generator=generator)] + 0.1 * torch.randn(
        900, 3, generator=generator
    )
    label = torch.nn.functional.normalize(label, dim=1).T.reshape(3, 30, 30).contiguous()
    constant, metric = ConstantPredictor(task), build_metric(task)
    constant.update(label)
    best = metric.score(metric.measure(constant.prediction((30, 30)), label))["mean"]
    rivals = torch.nn.functional.normalize(torch.randn(2000, 3, generator=generator), dim=1)
    rivals = torch.cat([rivals, label.reshape(3, -1).T[::5], label.reshape(3, -1).mean(dim=1)[None]])
    angles = [
        metric.score(metric.measure(rival[:, None, None].expand(3, 30, 30), label))["mean"]
        for rival in rivals
    ]
    assert best <= min(angles) + 0.05
    assert constant.value.norm() == pytest.approx(1)


def test_normals_of_any_sign_count_and_vectors_of_length_0_do_not():
    direction = torch.tensor([-2.0, -1.0, -2.0]) / 3
    label = direction[:, None, None].repeat(1, 4, 4)
    label[:, 0] = 0.0
    label[:, 1] = torch.nan
    constant = ConstantPredictor(normals())
    constant.update(label)
    torch.testing.assert_close(constant.value, direction, rtol=0, atol=1e-5)


def test_probabilities_are_base_rates():
    constant = ConstantPredictor(saliency())
    constant.update(torch.tensor([[1, 0, 0, 0, 255]]))
    assert constant.prediction((2, 2)).shape == (1, 2, 2)
    assert constant.value.tolist() == [0.25]
    constant = ConstantPredictor(edge())
    constant.update(torch.tensor([[[1.0, 0, 0, 0, torch.nan]]]))
    assert constant.value.tolist() == [0.25]


def test_without_labels():
    with pytest.raises(ValueError, match="no labelled pixel of task 'depth'"):
        _ = ConstantPredictor(depth()).value


def test_of_instances_is_none_at_all():
    task = instance(["a"])
    predictor = ConstantPredictor(task)
    label = torch.full((4, 5), 256)
    predictor.update(label)
    found = predictor.prediction((4, 5))
    assert found.shape == (2, 4, 5)
    metric = build_metric(task)
    assert metric.score(metric.measure(found, label))["instance_AP"] == 0
