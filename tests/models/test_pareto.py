"""Pareto Manifold Learning: the exact front of two quadratics, members, ordering, statistics, preferences."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from mtvision.core.context import Context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import BALANCERS
from mtvision.core.sample import Batch
from mtvision.evaluation.predictor import Predictor
from mtvision.models.adapters.pareto import calibrate_preferences, manifold_of
from mtvision.models.adapters.pareto.manifold import preference_rays
from mtvision.models.adapters.pareto.members import add_members, shares
from mtvision.models.factory import build_network
from mtvision.procedures.pareto import front_of
from mtvision.protocols import own_protocol
from mtvision.steps.pareto import ParetoStep, disorder
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.testing.inputs import ToyBackbone

A, B = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([-1.0, 0.0, 2.5])


class Point(nn.Module):
    """L_a = |x - A|², L_b = |x - B|²; the Pareto set is the segment between A and B."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([3.0, 3.0, 3.0]))

    def losses(self):
        return {"a": (self.x - A).square().sum(), "b": (self.x - B).square().sum()}


def problem_of(point):
    balancer = BALANCERS.build(
        {"type": "FixedWeights"}, tasks=("a", "b"), default_weights={"a": 1.0, "b": 1.0}
    )
    named = list(point.named_parameters())
    return StepProblem(forward=lambda batch: LossReport(point.losses()), balancer=balancer, parameters=named)


@pytest.mark.parametrize("kind", ["whole", "low_rank"])
@pytest.mark.parametrize("ordering", [0.0, 1.0])
def test_two_quadratics_have_their_exact_front(kind, ordering):
    point = Point().double()
    add_members(point, "x", ("a", "b"), kind)
    step, problem = ParetoStep(passes=2, ordering=ordering), problem_of(point)
    optimizer = torch.optim.SGD(point.parameters(), lr=0.2 - 0.05 * ordering)
    batch = Batch(image=torch.zeros(1, 3, 2, 2), labels={}, meta=[], present={})
    for _ in range(150):
        step(problem, batch)
        optimizer.step()
        optimizer.zero_grad()
    for share in np.linspace(0, 1, 11):
        with use_context(Context(preference={"a": share, "b": 1 - share})), torch.no_grad():
            found, losses = point.x.detach(), point.losses()
        assert torch.allclose(found, share * A.double() + (1 - share) * B.double(), atol=1e-4)
        length = float((A - B).double().square().sum())
        assert float(losses["a"]) == pytest.approx((1 - share) ** 2 * length, abs=1e-3)
        roots = math.sqrt(float(losses["a"])) + math.sqrt(float(losses["b"]))
        assert roots == pytest.approx(math.sqrt(length), abs=1e-3)  # the front: √L_a + √L_b = |A - B|


def test_gradients_are_those_of_the_formula():
    point = Point().double()
    add_members(point, "x", ("a", "b"), "whole")
    step = ParetoStep(passes=3, seed=5)
    drawn = step.preferences(("a", "b"), 0)
    step(problem_of(point), Batch(image=torch.zeros(1, 3, 2, 2), labels={}, meta=[], present={}))
    x = torch.tensor([3.0, 3.0, 3.0], dtype=torch.float64)
    for index, name in enumerate(("a", "b")):
        wanted = torch.zeros(3, dtype=torch.float64)
        for row in drawn:
            inner = 2 * row["a"] * 2 * (x - A) + 2 * row["b"] * 2 * (x - B)
            wanted += row[name] * inner / 3
        own = dict(point.named_parameters())[f"parametrizations.x.original{index}"].grad
        assert torch.allclose(own, wanted)


def test_the_penalty_is_of_losses_that_grow_with_their_preference():
    preferences = [{"a": 0.9}, {"a": 0.1}, {"a": 0.5}]
    losses = [{"a": torch.tensor(value)} for value in (3.0, 1.0, 2.5)]
    grown = [1.5, 0.5]  # from 0.1 to 0.5, from 0.5 to 0.9
    wanted = math.log(sum(math.exp(item) for item in grown) / 2)
    assert float(disorder(preferences, losses)) == pytest.approx(wanted, abs=1e-6)
    fine = [{"a": -item["a"]} for item in losses]
    assert float(disorder(preferences, fine)) == pytest.approx(0, abs=1e-6)


def test_preferences_are_checked():
    assert shares(None, ("a", "b")) == [0.5, 0.5]
    with pytest.raises(UnknownNameError, match="'c'"):
        shares({"c": 1.0}, ("a", "b"))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        shares({"a": -1.0}, ("a", "b"))
    with pytest.raises(ValueError, match="all weights are 0"):
        shares({"a": 0.0}, ("a", "b"))
    assert preference_rays(3, 1) == [
        (0, 0, 1),
        (0, 0.5, 0.5),
        (0, 1, 0),
        (0.5, 0, 0.5),
        (0.5, 0.5, 0),
        (1, 0, 0),
    ]


PROTOCOL = own_protocol("two", {"semseg": {"class_names": ["a", "b"]}, "depth": {}})


def network(adapters=(), **options) -> nn.Module:
    torch.manual_seed(0)
    model = {
        "backbone": {"type": ToyBackbone},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
        "adapters": [{"type": "ParetoManifold", "points": 2, **options}] if adapters == () else adapters,
    }
    return build_network(model, PROTOCOL.tasks).eval()


@pytest.mark.parametrize("kind", ["whole", "low_rank"])
def test_a_fresh_manifold_is_the_plain_network(kind):
    image = torch.rand(1, 3, 32, 32)
    plain, members = network([]), network(members=kind)
    for preference in (None, {"depth": 1.0}, {"depth": 0.3, "semseg": 0.7}):
        found = members(image, context=Context(preference=preference))
        for name, wanted in plain(image).items():
            assert torch.allclose(found[name], wanted, atol=1e-6)


def test_deep_copies_are_apart():
    own = network(members="whole")
    image, other = torch.rand(1, 3, 32, 32), copy.deepcopy(own)
    before = own(image)["depth"]
    with torch.no_grad():
        for item in other.parameters():
            item.add_(0.1)
    assert torch.equal(own(image)["depth"], before)
    assert not torch.equal(other(image)["depth"], before)


def test_statistics_and_predictions_follow_the_preference(tmp_path):
    own = network(members="whole")
    with torch.no_grad():
        for name, item in own.named_parameters():
            if name.endswith("original0"):
                item.mul_(1.5)
    image = torch.rand(4, 3, 32, 32)
    assert calibrate_preferences(own, lambda: [image], lambda batch: own(batch)) > 0
    manifold = manifold_of(own)
    assert bool(manifold.calibrated.all())
    assert manifold.nearest({"semseg": 0.9, "depth": 0.1}) == 2
    again = network(members="whole")
    again.load_state_dict(own.state_dict())
    one = again(image, context=Context(preference={"semseg": 1.0}))
    two = again(image, context=Context(preference={"depth": 1.0}))
    assert not torch.allclose(one["depth"], two["depth"])
    assert torch.equal(one["depth"], again(image, context=Context(preference={"semseg": 1.0}))["depth"])
    predictor = Predictor(again, PROTOCOL)
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    first = predictor(picture, preference={"semseg": 0.7, "depth": 0.3})
    second = predictor(picture, preference={"semseg": 0.0, "depth": 1.0})
    assert not np.array_equal(first["depth"], second["depth"])
    with pytest.raises(UnknownNameError, match="edge"):
        predictor(picture, preference={"edge": 1.0})


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match=r"'neck\.\*' matches no trainable parameter"):
        network(parameters=["neck.*"])
    model = {
        "backbone": {"type": ToyBackbone},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
        "adapters": [{"type": "ParetoManifold"}],
    }
    with pytest.raises(ValueError, match="a single task has no trade-off"):
        build_network(model, PROTOCOL.tasks[:1])
    with pytest.raises(ValueError, match="no manifold"):
        calibrate_preferences(network([]), list, print)


def test_the_measures_of_a_front():
    tasks = PROTOCOL.tasks  # mIoU counts upwards, RMSE downwards

    def scores(preference):
        return {"semseg": 0.4 + 0.2 * preference["semseg"], "depth": 1.0 - 0.5 * preference["depth"]}

    preferences = [{"semseg": share, "depth": 1 - share} for share in (0.0, 0.5, 1.0)]
    found = front_of(tasks, preferences, scores)
    assert found["points"][1]["errors"] == {"semseg": 1.0, "depth": 1.0}
    assert found["points"][1]["uniformity"] == pytest.approx(1.0)
    assert found["kept"] == 1.0
    corners = [(0.5 / 0.4, 0.5 / 0.75), (1.0, 1.0), (0.5 / 0.6, 1.0 / 0.75)]
    steps = sorted(corners)
    slices = [(steps[0][0], steps[0][1]), (steps[1][0], steps[1][1]), (steps[2][0], steps[2][1])]
    area, right = 0.0, 2.0
    for x, y in reversed(slices):
        area += (right - x) * (2.0 - y)
        right = x
    assert found["hypervolume"] == pytest.approx(area)
    worse = front_of(tasks, [{"semseg": 0.5, "depth": 0.5}], scores, {"semseg": 1.0, "depth": 0.1})
    assert worse["hypervolume"] == 0.0
