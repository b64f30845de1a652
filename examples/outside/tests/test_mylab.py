"""Every part keeps the properties that mtvision relies on, and a closed form of its own."""

import math
from functools import partial

import pytest
import torch
from mylab.balancer import RevisedUncertainty
from mylab.dataset import ShadedDiscs
from mylab.decoder import GatedDecoder
from mylab.loss import CharbonnierLoss
from mylab.metric import AlbedoError
from mylab.task import albedo

from mtvision.protocols import own_protocol
from mtvision.testing import (
    check_balancer,
    check_dataset,
    check_decoder,
    check_loss,
    check_metric,
    properties,
)

PROTOCOL = own_protocol("shaded-discs", {"semseg": {"class_names": ["ground", "disc"]}, "albedo": {}})
DATA = partial(ShadedDiscs, length=5, protocol=PROTOCOL, transforms="light")
CHECKS = {
    "balancer": partial(check_balancer, RevisedUncertainty),
    "dataset": partial(check_dataset, DATA),
    "decoder": partial(check_decoder, partial(GatedDecoder, width=8)),
    "loss": partial(check_loss, CharbonnierLoss, task=albedo()),
    "metric": partial(check_metric, AlbedoError, task=albedo()),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CHECKS for name in properties(kind)])
def test_properties(kind, name):
    CHECKS[kind](only=[name]).raise_if_failed()


def test_the_brightness_of_a_prediction_does_not_matter():
    label = torch.rand(3, 8, 8)
    assert AlbedoError().score(AlbedoError().measure(0.5 * label, label))["si_rmse"] < 1e-6


def test_weights_at_the_start():
    balancer = RevisedUncertainty(tasks=["semseg", "albedo"])
    total = balancer.combine({"semseg": torch.tensor(3.0), "albedo": torch.tensor(1.0)})
    assert balancer.weights() == {"semseg": 0.5, "albedo": 0.5}
    assert float(total.detach()) == pytest.approx(3 / 2 + 1 / 2 + 2 * math.log(2))
