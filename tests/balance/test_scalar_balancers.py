"""Scalar balancers: formulas, gradients, optima, subsets of tasks, bad options."""

import math

import pytest
import torch
from torch import nn

from mtvision.balance import Balancer, FixedWeights, LogSum, Uncertainty
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import BALANCERS

TASKS = ("semseg", "depth", "edge")


def leaf(*values: float) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in zip(TASKS, values, strict=False)
    }


def gradients(balancer: Balancer, losses: dict[str, torch.Tensor]) -> list[float]:
    return [item.item() for item in torch.autograd.grad(balancer.combine(losses), list(losses.values()))]


# ------------------------------------------------------------------------------------- fixed weights


def test_fixed_weights_is_the_weighted_sum():
    weights = {"semseg": 1, "depth": 0.5, "edge": 50}
    balancer = FixedWeights(tasks=TASKS, weights=weights)
    assert balancer.combine(leaf(2, 3, 0.1)).item() == pytest.approx(2 + 1.5 + 5)
    assert gradients(balancer, leaf(2, 3, 0.1)) == [1, 0.5, 50]
    assert {name: float(value) for name, value in balancer.weights().items()} == weights


def test_fixed_weights_of_the_tasks_present_only():
    balancer = FixedWeights(tasks=TASKS, weights={"semseg": 1, "depth": 2, "edge": 50})
    assert balancer.combine(leaf(2, 3)).item() == 8


def test_fixed_weights_come_from_config_then_protocol_then_one():
    protocol = {"semseg": 4.0, "edge": 50.0, "a task that was deselected": 3.0}
    assert FixedWeights(tasks=TASKS, default_weights=protocol).task_weights == {
        "semseg": 4.0,
        "depth": 1.0,
        "edge": 50.0,
    }
    own = dict.fromkeys(TASKS, 2.0)
    assert FixedWeights(tasks=TASKS, weights=own, default_weights=protocol).task_weights == own
    assert FixedWeights(tasks=TASKS).task_weights == dict.fromkeys(TASKS, 1.0)


# ------------------------------------------------------------------------------------------- log sum


def test_log_sum_by_hand():
    assert LogSum(tasks=TASKS).combine(leaf(1, math.e, 1)).item() == pytest.approx(1, abs=1e-6)


def test_log_sum_gradient_is_the_sum_of_gradients_over_losses():
    balancer = LogSum(tasks=TASKS)
    assert gradients(balancer, leaf(2, 4, 0.1)) == pytest.approx([1 / 2, 1 / 4, 10], rel=1e-6)
    logged = {name: float(value) for name, value in balancer.weights().items()}
    assert logged == pytest.approx({"semseg": 0.5, "depth": 0.25, "edge": 10}, rel=1e-6)


def test_log_sum_direction_does_not_depend_on_the_unit_of_a_loss():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def direction(unit):
        losses = {"semseg": (x**2).sum(), "depth": unit * x.abs().sum()}
        return torch.autograd.grad(LogSum(tasks=TASKS).combine(losses), x)[0]

    torch.testing.assert_close(direction(1.0), direction(1000.0), rtol=1e-6, atol=0)


def test_log_sum_of_a_zero_loss_stays_finite():
    balancer = LogSum(tasks=TASKS)
    z = torch.zeros(1, requires_grad=True)
    total = balancer.combine({"semseg": (z * 0).sum(), "depth": z.sum() + 1})
    assert total.item() == pytest.approx(math.log(1e-8))
    total.backward()
    assert z.grad.isfinite().all()


# --------------------------------------------------------------------------------------- uncertainty


def test_uncertainty_at_the_start():
    assert Uncertainty(tasks=TASKS).combine(leaf(2, 4, 6)).item() == pytest.approx(6)  # ½ Σ L
    shifted = Uncertainty(tasks=TASKS, initial=-0.5)  # LibMTL's start
    expected = 0.5 * math.exp(0.5) * 12 - 3 * 0.25
    assert shifted.combine(leaf(2, 4, 6)).item() == pytest.approx(expected)


@pytest.mark.parametrize("factors", [0.5, 1.0, {"semseg": 1.0, "depth": 0.5, "edge": 0.5}])
def test_uncertainty_optimum(factors):
    """∂L/∂s_t = 0 at e^{s_t} = 2 c_t L_t, where L = ½ Σ (1 + ln 2 c_t L_t) and weights are 1 / (2 L_t)."""
    balancer = Uncertainty(tasks=TASKS, factors=factors).double()
    values = {"semseg": 2.0, "depth": 0.3, "edge": 0.01}
    constants = {name: 2 * balancer.factors[name] * value for name, value in values.items()}
    with torch.no_grad():
        balancer.log_variance.copy_(torch.tensor([math.log(constants[name]) for name in TASKS]).double())
    total = balancer.combine({name: torch.tensor(value).double() for name, value in values.items()})
    assert total.item() == pytest.approx(
        sum(0.5 * (1 + math.log(item)) for item in constants.values()), rel=1e-6
    )
    total.backward()
    assert balancer.log_variance.grad.abs().max() < 1e-7
    logged = {name: float(value) for name, value in balancer.weights().items()}
    assert logged == pytest.approx({name: 1 / (2 * value) for name, value in values.items()}, rel=1e-6)


def test_uncertainty_learns_its_optimum():
    balancer = Uncertainty(tasks=("semseg",))
    optimizer = torch.optim.SGD(balancer.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        balancer.combine({"semseg": torch.tensor(3.0)}).backward()
        optimizer.step()
    assert balancer.log_variance.item() == pytest.approx(math.log(3), rel=1e-4)


def test_uncertainty_of_an_absent_task_has_no_gradient():
    balancer = Uncertainty(tasks=TASKS)
    balancer.combine({"edge": torch.tensor(1.0)}).backward()
    assert balancer.log_variance.grad.tolist() == [0, 0, 0.5 - 0.5]
    balancer.combine({"depth": torch.tensor(3.0)}).backward()
    assert balancer.log_variance.grad.tolist() == [0, -1, 0]


# ----------------------------------------------------------------------------------------- the contract

SCALAR = [{"type": "FixedWeights"}, {"type": "LogSum"}, {"type": "Uncertainty"}]
every = pytest.mark.parametrize("config", SCALAR, ids=[item["type"] for item in SCALAR])


@every
def test_one_call_builds_any_balancer(config):
    balancer = BALANCERS.build(config, tasks=TASKS, default_weights={"semseg": 1.0})
    assert isinstance(balancer, Balancer)
    assert balancer.needs == "scalar"
    with pytest.raises(NotImplementedError, match="does not aggregate"):
        balancer.aggregate(torch.zeros(3, 2), TASKS)


@every
def test_order_of_the_losses_is_irrelevant(config):
    balancer = BALANCERS.build(config, tasks=TASKS)
    losses = leaf(1, 2, 3)
    backwards = dict(reversed(list(losses.items())))
    torch.testing.assert_close(balancer.combine(losses), balancer.combine(backwards))


@every
def test_no_loss_and_unknown_task_are_errors(config):
    balancer = BALANCERS.build(config, tasks=TASKS)
    with pytest.raises(ValueError, match="no loss to balance"):
        balancer.combine({})
    with pytest.raises(UnknownNameError, match="'dept'. Did you mean 'depth'"):
        balancer.combine({"dept": torch.tensor(1.0)})


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"type": "FixedWeights", "weights": {"semseg": 1}}, ValueError, "weights for depth, edge"),
        ({"type": "FixedWeights", "weights": {"sem": 1}}, UnknownNameError, "Did you mean 'semseg'"),
        ({"type": "FixedWeights", "weights": dict.fromkeys(TASKS, -1)}, ValueError, "not negative"),
        ({"type": "FixedWeights", "weights": dict.fromkeys(TASKS, math.nan)}, ValueError, "finite"),
        ({"type": "LogSum", "epsilon": 0}, ValueError, "epsilon must be positive"),
        ({"type": "Uncertainty", "factors": 0}, ValueError, "factors must be positive"),
        ({"type": "Uncertainty", "factor": 1}, UnknownNameError, "Did you mean 'factors'"),
        ({"type": "FixedWeight"}, UnknownNameError, "Did you mean 'FixedWeights'"),
    ],
)
def test_bad_options_are_refused(config, error, message):
    with pytest.raises(error, match=message):
        BALANCERS.build(config, tasks=TASKS)


def test_tasks_must_be_distinct_and_some():
    for tasks in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="non-empty and distinct"):
            FixedWeights(tasks=tasks)


def test_scalar_balancers_have_no_parameters_unless_learnt():
    assert list(FixedWeights(tasks=TASKS).parameters()) == list(LogSum(tasks=TASKS).parameters()) == []
    assert isinstance(Uncertainty(tasks=TASKS).log_variance, nn.Parameter)
