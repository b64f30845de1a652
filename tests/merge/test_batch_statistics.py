"""Recalibration of batch norms: known statistics, order, modes, and networks without batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtvision.ops.batch_statistics import recalibrate


def network():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    return nn.Sequential(first, nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2, momentum=0.3)).double()


@pytest.fixture
def batches():
    stream = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 6, 7, generator=stream, dtype=torch.float64) for _ in range(3)]


def statistics(model):
    return {name: item.clone() for name, item in model.state_dict().items() if "running" in name}


def test_statistics_are_those_of_the_batches(batches):
    model = network()
    assert recalibrate(model, batches, model) == 2
    first = [model[0][0](batch) for batch in batches]
    mean = torch.stack([item.mean(dim=(0, 2, 3)) for item in first]).mean(dim=0)
    variance = torch.stack([item.var(dim=(0, 2, 3)) for item in first]).mean(dim=0)
    torch.testing.assert_close(model[0][1].running_mean, mean)
    torch.testing.assert_close(model[0][1].running_var, variance)


def test_it_is_the_cumulative_average_of_torch(batches):
    """Reset, `momentum=None`, training mode of norms only: the usual recipe."""
    model, usual = network(), network()
    recalibrate(model, batches, model)
    usual.eval()
    for norm in (usual[0][1], usual[2]):
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    for batch in batches:
        usual(batch)
    for name, item in statistics(usual).items():
        torch.testing.assert_close(statistics(model)[name], item)


def test_order_and_earlier_statistics_do_not_matter(batches):
    one, other = network(), network()
    other[2].running_mean.fill_(9)
    recalibrate(one, batches, one)
    recalibrate(other, list(reversed(batches)), other)
    for name, item in statistics(one).items():
        torch.testing.assert_close(statistics(other)[name], item)


def test_modes_weights_and_momentum_are_restored(batches):
    model = network().train()
    model[0].eval()
    before = {name: item.clone() for name, item in model.named_parameters()}
    recalibrate(model, batches, model)
    assert [item.training for item in model] == [False, True, True]
    assert model[0][3].training is False
    assert (model[0][1].momentum, model[2].momentum) == (0.1, 0.3)
    assert all(torch.equal(item, before[name]) for name, item in model.named_parameters())
    assert not model[0][1]._forward_pre_hooks


def test_without_norms_or_batches(batches):
    plain = nn.Conv2d(3, 4, 1).double()
    assert recalibrate(plain, iter(()), plain) == 0
    model = network()
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(model, [], model)
