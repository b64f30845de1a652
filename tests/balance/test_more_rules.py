"""Bi-level weights, principal directions and logarithmic forms against loops written from the papers."""

import pytest
import torch

from mtvision.balance import AutoLambda, LogLosses, PrincipalWeights, TorchJD
from mtvision.core.naming import UnknownNameError

TASKS = ("semseg", "depth", "edge")
LOSSES = {
    name: torch.tensor(value, dtype=torch.float64) for name, value in zip(TASKS, (0.5, 2.0, 3.0), strict=True)
}


def matrix(seed=0, columns=7):
    return torch.randn(3, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------- principal directions


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_principal_weights_equal_algorithm_2(rank):
    J = matrix()
    balancer = PrincipalWeights(tasks=TASKS, rank=rank)
    found = balancer.aggregate(J, TASKS)
    U, _, _ = torch.linalg.svd(J.T, full_matrices=False)  # columns of Jᵀ are the θ of the tasks
    lengths = torch.stack([(U[:, :rank].T @ J[t]).norm() for t in range(3)])
    expected = lengths / lengths.mean()
    torch.testing.assert_close(torch.stack([balancer.weights()[name] for name in TASKS]), expected)
    torch.testing.assert_close(found, expected @ J)


def test_all_directions_weigh_by_the_norm_and_unit_ones_equally():
    J = matrix(1)
    every = PrincipalWeights(tasks=TASKS, rank=3)
    every.aggregate(J, TASKS)
    norms = J.norm(dim=1)
    torch.testing.assert_close(torch.stack([every.weights()[name] for name in TASKS]), norms / norms.mean())
    unit = PrincipalWeights(tasks=TASKS, rank=3, unit=True)
    torch.testing.assert_close(unit.aggregate(J, TASKS), J.sum(dim=0))


def test_a_task_at_right_angles_to_the_others_weighs_nothing():
    J = torch.tensor([[3.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    balancer = PrincipalWeights(tasks=TASKS)
    torch.testing.assert_close(
        balancer.aggregate(J, TASKS), torch.tensor([(9.0 + 4.0) * 3 / 5, 0.0], dtype=torch.float64)
    )


# ------------------------------------------------------------------------------------------ logarithms


def test_log_losses_do_not_see_the_unit_of_a_task():
    J, factors = matrix(), torch.tensor([1.0, 1000.0, 0.01], dtype=torch.float64)
    results = []
    for scale in (torch.ones(3, dtype=torch.float64), factors):
        balancer = LogLosses(tasks=TASKS, balancer={"type": "TorchJD", "aggregator": "AlignedMTL"})
        balancer.see_losses({name: LOSSES[name] * scale[t] for t, name in enumerate(TASKS)})
        results.append(balancer.aggregate(J * scale[:, None], TASKS))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=0)


def test_log_losses_are_the_rule_on_gradients_of_logarithms():
    J = matrix()
    balancer = LogLosses(tasks=TASKS, balancer={"type": "UPGrad"})
    balancer.see_losses(LOSSES)
    values = torch.stack([LOSSES[name] for name in TASKS])
    direct = TorchJD(tasks=TASKS, aggregator="UPGrad").aggregate(J / values[:, None], TASKS)
    torch.testing.assert_close(balancer.aggregate(J, TASKS), direct, rtol=1e-6, atol=1e-9)
    own = balancer.own_weights()
    torch.testing.assert_close(own["depth"], torch.tensor(0.5, dtype=torch.float64), rtol=1e-6, atol=0)


def test_weights_of_log_losses_are_those_of_plain_gradients():
    J = matrix()
    balancer = LogLosses(tasks=TASKS, balancer={"type": "MGDA"})
    balancer.see_losses(LOSSES)
    found = balancer.aggregate(J, TASKS)
    weights = torch.stack([balancer.weights()[name] for name in TASKS])
    torch.testing.assert_close(weights @ J, found)
    torch.testing.assert_close(balancer.weigh(J @ J.T, TASKS), weights)
    assert balancer.needs == "gramian"


def test_log_losses_of_two_tasks_and_of_rules_with_state():
    balancer = LogLosses(tasks=TASKS, balancer={"type": "NormScaling"})
    balancer.see_losses({name: LOSSES[name] for name in TASKS[:2]})
    assert balancer.aggregate(matrix()[:2], TASKS[:2]).isfinite().all()
    fresh = LogLosses(tasks=TASKS, balancer={"type": "NormScaling"})
    fresh.load_state_dict(balancer.state_dict())
    assert fresh.inner.memory == balancer.inner.memory


def test_rules_over_losses_are_refused_inside():
    with pytest.raises(ValueError, match="LogLosses: FAMO needs 'extra_forward'; expected .*LogSum"):
        LogLosses(tasks=TASKS, balancer={"type": "FAMO"})


# ---------------------------------------------------------------------------------------- Auto-Lambda


def test_auto_lambda_takes_steps_of_adam():
    balancer = AutoLambda(tasks=TASKS, initial=0.1, lr=0.01)
    weights = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=0.01)
    for step in range(4):
        slopes = matrix(step)[:, 0]
        balancer.observe(dict(zip(TASKS, slopes, strict=True)))
        weights.grad = slopes.clone()
        adam.step()
    total = balancer.combine(LOSSES)
    torch.testing.assert_close(total, (weights.detach() * torch.stack(list(LOSSES.values()))).sum())
    torch.testing.assert_close(torch.stack(list(balancer.weights().values())), weights.detach())


def test_auto_lambda_goes_on_from_its_state():
    first = AutoLambda(tasks=TASKS)
    first.observe(LOSSES)
    second = AutoLambda(tasks=TASKS)
    second.load_state_dict(first.state_dict())
    for balancer in (first, second):
        balancer.observe({"depth": LOSSES["depth"]})
    assert torch.equal(first.combine(LOSSES), second.combine(LOSSES))


def test_auto_lambda_judges_by_the_primary_tasks():
    balancer = AutoLambda(tasks=TASKS, primary=["depth"])
    assert float(balancer.judge(LOSSES)) == 2.0
    assert float(balancer.judge({"edge": LOSSES["edge"]})) == 0.0
    with pytest.raises(UnknownNameError, match="primary task 'dept'"):
        AutoLambda(tasks=TASKS, primary=["dept"])
