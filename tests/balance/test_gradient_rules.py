"""Rules over gradients: closed forms, loops written from the papers, equality with torchjd, options."""

import pytest
import torch
import torchjd.aggregation as theirs

from mtvision.balance import (
    DBMTL,
    IMTL,
    MGDA,
    FeatureWeights,
    GradNorm,
    MoCo,
    MoDo,
    NashMTL,
    NormScaling,
    TorchJD,
)
from mtvision.balance.gramian.nash import bargain
from mtvision.balance.jacobian.tracked import onto_simplex

TASKS = ("semseg", "depth", "edge")
LOSSES = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


def matrix(tasks: int = 3, columns: int = 7) -> torch.Tensor:
    return torch.randn(tasks, columns, dtype=torch.float64)


def ask(balancer, jacobian, losses=LOSSES, tasks=TASKS) -> torch.Tensor:
    balancer.see_losses(dict(zip(tasks, losses, strict=True)))
    return balancer.aggregate(jacobian, tasks)


# ------------------------------------------------------------------------------------------- norms


def test_gradnorm_evens_out_the_norms():
    """Without restoring force its optimum has equal weighted norms."""
    balancer = GradNorm(tasks=("a", "b"), alpha=0.0).double()
    J = torch.tensor([[4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    optimizer = torch.optim.SGD(balancer.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        ask(balancer, J, LOSSES[:2], ("a", "b"))
        optimizer.step()
    weights = [float(item) for item in balancer.weights().values()]
    assert weights == pytest.approx([0.4, 1.6], abs=0.2)


def test_gradnorm_weighs_equally_during_the_reference():
    balancer = GradNorm(tasks=TASKS, reference=2)
    J = matrix()
    for _ in range(2):
        torch.testing.assert_close(ask(balancer, J), J.sum(dim=0))
        assert balancer.logits.grad is None
    ask(balancer, J, LOSSES.flip(0))
    assert balancer.logits.grad is not None


def test_norm_scaling_gives_every_task_the_same_norm():
    J = matrix() * torch.tensor([1.0, 100.0, 0.01]).double()[:, None]
    balancer = NormScaling(tasks=TASKS, decay=0.0)
    found = balancer.aggregate(J, TASKS)
    norms = J.norm(dim=1)
    torch.testing.assert_close(found, norms.mean() * (J / norms[:, None]).sum(dim=0))
    running = NormScaling(tasks=TASKS, decay=0.5)
    for scale in (1.0, 2.0):
        running.aggregate(scale * J, TASKS)
    squares = (0.25 * norms**2 + 0.5 * (2 * norms) ** 2) / 0.75
    expected = squares.sqrt().mean() / squares.sqrt()
    torch.testing.assert_close(torch.stack(list(running.weights().values())), expected)


# -------------------------------------------------------------------------------------------- MGDA


def test_mgda_of_two_gradients_is_the_foot_of_the_perpendicular():
    J = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = ask(MGDA(tasks=("a", "b")), J, LOSSES[:2], ("a", "b"))
    torch.testing.assert_close(found, torch.tensor([0.4, 0.8], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["none", "l2", "loss", "loss+"])
@pytest.mark.parametrize("applied", ["gradients", "normalised"])
def test_mgda_normalisations(kind, applied):
    J = matrix()
    norms = J.norm(dim=1)
    scales = {"none": torch.ones(3), "l2": norms, "loss": LOSSES, "loss+": LOSSES * norms}[kind].double()
    weights = theirs.MGDAWeighting()((J / scales[:, None]) @ (J / scales[:, None]).T)
    expected = weights @ (J / scales[:, None] if applied == "normalised" else J)
    found = ask(MGDA(tasks=TASKS, normalise=kind, applied=applied), J)
    torch.testing.assert_close(found, expected)
    if kind == "none":
        torch.testing.assert_close(found, theirs.MGDA()(J))


# -------------------------------------------------------------------------------------------- Nash


def test_nash_fulfils_its_equation():
    for _ in range(5):
        gramian = matrix() @ matrix(3).T
        gramian = gramian @ gramian.T
        gramian = gramian / gramian.norm()
        weights = bargain(gramian)
        assert bool((weights > 0).all())
        torch.testing.assert_close(gramian @ weights, 1 / weights, rtol=1e-6, atol=0)


def test_nash_of_orthogonal_gradients_divides_by_their_norms():
    """G is diagonal: w_t = 1/‖g_t‖ up to the common factor, which max_norm fixes."""
    J = torch.diag(torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64))
    found = NashMTL(tasks=TASKS).aggregate(J, TASKS)
    torch.testing.assert_close(found, torch.full((3,), 3**-0.5, dtype=torch.float64), rtol=1e-6, atol=0)
    free = NashMTL(tasks=TASKS, max_norm=0.0)
    free.aggregate(J, TASKS)
    expected = (J @ J.T).norm().sqrt() / J.diagonal()
    torch.testing.assert_close(torch.stack(list(free.weights().values())), expected, rtol=1e-6, atol=0)


def test_nash_agrees_with_fairgrad_of_one():
    """FairGrad with α = 1 solves the same equation."""
    J = matrix()
    found = NashMTL(tasks=TASKS, max_norm=0.0).aggregate(J, TASKS)
    other = theirs.FairGrad(1.0)(J)
    torch.testing.assert_close(found / found.norm(), other / other.norm(), rtol=1e-4, atol=1e-5)


def test_nash_survives_opposite_gradients_and_reuses_weights():
    J = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert NashMTL(tasks=("a", "b")).aggregate(J, ("a", "b")).isfinite().all()
    balancer = NashMTL(tasks=TASKS, every=2, max_norm=0.0)
    balancer.aggregate(matrix(), TASKS)
    first = balancer.weights()
    balancer.aggregate(matrix(), TASKS)
    assert balancer.weights() == first
    assert set(balancer.own_weights()) == set(TASKS)


def test_nash_scales_down_the_shared_gradient_alone():
    J = torch.diag(torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64))
    bounded, free = NashMTL(tasks=TASKS), NashMTL(tasks=TASKS, max_norm=0.0)
    for balancer in (bounded, free):
        balancer.aggregate(J, TASKS)
    assert bounded.own_weights() == free.own_weights() == free.weights()
    assert bounded.weights() != free.weights()
    bounded.aggregate(0 * J, TASKS)
    assert {float(item) for item in bounded.own_weights().values()} == {1.0}


# -------------------------------------------------------------------------------------------- IMTL


def test_imtl_projects_equally_and_learns_its_scales():
    balancer = IMTL(tasks=TASKS).double()
    with torch.no_grad():
        balancer.log_scale.copy_(torch.tensor([0.5, -0.3, 0.0]))
    scales = balancer.log_scale.detach().exp()
    J = matrix()
    found = ask(balancer, J)
    projections = (J / J.norm(dim=1, keepdim=True)) @ found
    torch.testing.assert_close(projections, projections[:1].expand(3))
    torch.testing.assert_close(found, theirs.IMTLG()(J * scales[:, None]))
    torch.testing.assert_close(balancer.log_scale.grad, scales * LOSSES - 1)
    torch.testing.assert_close(torch.stack(list(balancer.own_weights().values())), scales)


# --------------------------------------------------------------------------------- running gradients


@pytest.mark.parametrize("options", [{}, {"projection": "simplex", "scaled": False, "rho": 0.1}])
def test_moco_step_by_step(options):
    balancer = MoCo(tasks=TASKS, **options)
    y, weights = torch.zeros(3, 7, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    for step in (1, 2, 3):
        J = matrix()
        fresh = J
        if not options:
            fresh = torch.stack([J[t] / (J[t].norm() + 1e-8) * LOSSES[t] for t in range(3)])
        y = y - 0.5 / step**0.5 * (y - fresh)
        slope = (y @ y.T + options.get("rho", 0.0) * torch.eye(3)) @ weights
        weights = weights - 0.1 / step**0.5 * slope
        weights = onto_simplex(weights) if options else weights.softmax(0)
        torch.testing.assert_close(ask(balancer, J), y.T @ weights)


def test_dbmtl_step_by_step():
    balancer = DBMTL(tasks=TASKS, beta_sigma=0.5)
    buffer = torch.zeros(3, 7, dtype=torch.float64)
    for step in (1, 2, 3):
        J = matrix()
        fresh = torch.stack([J[t] / LOSSES[t] for t in range(3)])  # gradient of the logarithm
        buffer = fresh + 0.9 / step**0.5 * (buffer - fresh)
        norms = buffer.norm(dim=1)
        expected = sum(norms.max() / norms[t] * buffer[t] for t in range(3))
        torch.testing.assert_close(ask(balancer, J), expected, rtol=1e-6, atol=1e-9)
    assert float(balancer.own_weights()["depth"]) == pytest.approx(0.5)


@pytest.mark.parametrize("make", [MoCo, DBMTL])
def test_running_gradients_refuse_missing_tasks_and_other_sizes(make):
    balancer = make(tasks=TASKS)
    ask(balancer, matrix())
    with pytest.raises(ValueError, match=f"{make.__name__} keeps state for every task"):
        ask(balancer, matrix(2), LOSSES[:2], TASKS[:2])
    with pytest.raises(ValueError, match=r"\(3, 7\), this batch's \(3, 9\)"):
        ask(balancer, matrix(columns=9))


def test_projection_onto_the_simplex():
    inside = torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(onto_simplex(inside), inside)
    assert onto_simplex(torch.tensor([5.0, 0.0, 0.0])).tolist() == [1, 0, 0]
    torch.testing.assert_close(onto_simplex(torch.tensor([1.0, 1.0])), torch.tensor([0.5, 0.5]))


# ---------------------------------------------------------------------------------- parts of a batch


def test_modo_step_by_step():
    balancer = MoDo(tasks=TASKS, gamma=0.05, rho=0.2)
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(3):
        first, second, third = (matrix() for _ in range(3))
        weights = onto_simplex(weights - 0.05 * (first @ (second.T @ weights) + 0.2 * weights))
        found = balancer.aggregate_parts([first, second, third], TASKS)
        torch.testing.assert_close(found, weights @ third)


# ----------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("name", ["MGDA", "AlignedMTL", "IMTLG", "PCGrad"])
def test_feature_weights_are_torchjds(name):
    Z = matrix()
    balancer = FeatureWeights(tasks=TASKS, aggregator=name)
    if name == "PCGrad":
        assert not torch.equal(balancer.weigh(Z @ Z.T, TASKS), balancer.weigh(Z @ Z.T, TASKS))
        return
    expected = getattr(theirs, f"{name}Weighting")()(Z @ Z.T)
    torch.testing.assert_close(balancer.weigh(Z @ Z.T, TASKS), expected)


@pytest.mark.parametrize("name", ["UPGrad", "DualProj"])
def test_small_gradients_of_features_are_not_zero(name):
    """torchjd alone stops resolving conflicts below a squared norm of 1e-4."""
    Z = torch.tensor([[1.0, 0.0], [-3.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    balancer = FeatureWeights(tasks=TASKS, aggregator=name)
    large = balancer.weigh(Z @ Z.T, TASKS)
    torch.testing.assert_close(balancer.weigh(Z @ Z.T * 2.0**-40, TASKS), large)
    assert large.std() > 1e-3


def test_feature_weights_refuse_state():
    with pytest.raises(ValueError, match="GradVac keeps state"):
        FeatureWeights(tasks=TASKS, aggregator="GradVac")


def test_own_gradients_can_be_weighted():
    J = matrix()
    plain, weighted = (TorchJD(tasks=TASKS, aggregator="MGDA", own=own) for own in ("plain", "weighted"))
    for balancer in (plain, weighted):
        balancer.aggregate(J, TASKS)
    assert plain.own_weights() == {}
    assert weighted.own_weights() == weighted.weights()
