"""Every rule of torchjd: reached by name and equal to a direct call, or named with the reason why not."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torchjd.aggregation as aggregation
import torchjd.scalarization as scalarization

from mtvision.balance import MoDo, NashMTL, Scalarizer, SDMGrad, SmoothedWeights, TorchJD, Uncertainty
from mtvision.balance.jacobian.aggregators import AGGREGATORS
from mtvision.balance.scalar.scalarizer import SCALARIZERS

TASKS = ("semseg", "depth", "edge")
SOLVER = all(map(importlib.util.find_spec, ("cvxpy", "clarabel")))
BASES = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator", "Weighting", "Scalarizer"}
ELSEWHERE = {
    "Constant": "FixedWeights is the same rule, for the price of one backward pass",
    "NashMTL": "its state cannot be saved; the balancer NashMTL solves the same equation",
    "UW": "the balancer Uncertainty",
    "FAMO": "its optimizer cannot be saved; the balancer FAMO",
    "ConstantWeighting": "weights of Constant",
    "MoDoWeighting": "the balancer MoDo",
    "SDMGradWeighting": "the balancer SDMGrad",
    "CRMOGMWeighting": "the balancer SmoothedWeights",
}
AGGREGATOR_OPTIONS = {
    "CAGrad": {"c": 0.4},
    "ExcessMTL": {"robust_step_size": 0.5, "n_warmup_steps": 1},
    "FairGrad": {"alpha": 2.0},
    "GradVac": {"beta": 0.3},
    "Krum": {"n_byzantine": 0, "n_selected": 2},
    "PCD": {"tau": 0.1, "beta": 0.9},
    "TrimmedMean": {"trim_number": 1},
}
THIRD = torch.full((3,), 1 / 3, dtype=torch.float64)
SCALARIZER_OPTIONS = {
    "COSMOS": ({"lambda_": 2.0}, {"weights": THIRD}),
    "IMTLL": ({}, {"shape": 3}),
    "PBI": ({"theta": 2.0}, {"weights": THIRD}),
    "STCH": ({"mu": 0.5}, {}),
}


def batches(count=3):
    return [torch.randn(3, 7, dtype=torch.float64) for _ in range(count)]


def seeded(call, run):
    """A direct call with the random numbers of the balancer's call."""
    with torch.random.fork_rng([]):
        torch.manual_seed(call)
        return run()


def public(module):
    return {name for name in module.__all__ if name not in BASES}


def test_no_rule_of_torchjd_is_forgotten():
    names = public(aggregation) | public(scalarization)
    reached = set(AGGREGATORS) - {"NashMTL"} | set(SCALARIZERS)
    reached |= {f"{name}Weighting" for name in AGGREGATORS}
    assert names <= reached | set(ELSEWHERE), "a new rule: reach it by name or add it to ELSEWHERE"
    assert set(ELSEWHERE) <= names, "torchjd no longer has what ELSEWHERE names"
    assert not (reached - {f"{name}Weighting" for name in AGGREGATORS}) & set(ELSEWHERE)


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS) - {"NashMTL"}))
def test_an_aggregator_equals_a_direct_call(name):
    """Three batches in a row, by the matrix and, where products suffice, by the products alone."""
    if name == "CAGrad" and not SOLVER:
        pytest.skip("needs mtvision[solvers]")
    options = AGGREGATOR_OPTIONS.get(name, {})
    direct = AGGREGATORS[name](**options)
    balancer, by_products = (TorchJD(tasks=TASKS, aggregator=name, **options) for _ in range(2))
    for call, rows in enumerate(batches(), start=1):
        wanted = seeded(call, lambda rows=rows: direct(rows))
        close = {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(balancer.aggregate(rows, TASKS), wanted, **close)
        if balancer.needs == "gramian":
            weights = by_products.weigh(rows @ rows.T, TASKS)
            torch.testing.assert_close(weights @ rows, wanted, **close)


@pytest.mark.parametrize("name", sorted(SCALARIZERS))
def test_a_scalarizer_equals_a_direct_call(name):
    options, further = SCALARIZER_OPTIONS.get(name, ({}, {}))
    direct = SCALARIZERS[name](**options, **further).double()
    balancer = Scalarizer(tasks=TASKS, scalarizer=name, **options).double()
    for call in (1, 2, 3):
        values = torch.rand(3, dtype=torch.float64) + 0.1
        mine, theirs = (values.clone().requires_grad_() for _ in range(2))
        total = balancer.combine(dict(zip(TASKS, mine.unbind(), strict=True)))
        wanted = seeded(call, lambda theirs=theirs: direct(theirs))
        torch.testing.assert_close(total, wanted, rtol=1e-12, atol=0)
        gradients = [torch.autograd.grad(item, point)[0] for item, point in ((total, mine), (wanted, theirs))]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
        reported = torch.stack(list(balancer.weights().values()))
        torch.testing.assert_close(reported, gradients[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "direct"),
    [(MoDo, aggregation.MoDoWeighting), (SDMGrad, aggregation.SDMGradWeighting)],
    ids=["MoDo", "SDMGrad"],
)
def test_rules_over_parts_equal_direct_calls(make, direct):
    balancer, weighting = make(tasks=TASKS), direct()
    for _ in range(3):
        parts = batches()
        wanted = weighting(parts[0] @ parts[1].T) @ parts[2]
        torch.testing.assert_close(balancer.aggregate_parts(parts, TASKS), wanted)


def test_smoothed_weights_equal_a_direct_call():
    balancer = SmoothedWeights(tasks=TASKS, balancer={"type": "UPGrad"}, alpha=0.7)
    direct = aggregation.GramianWeightedAggregator(
        aggregation.CRMOGMWeighting(aggregation.UPGradWeighting(), alpha=0.7)
    )
    for rows in batches():
        torch.testing.assert_close(balancer.aggregate(rows, TASKS), direct(rows), rtol=1e-9, atol=1e-12)


def test_uncertainty_equals_a_direct_call():
    ours, direct = Uncertainty(tasks=TASKS), scalarization.UW(3)
    s = torch.randn(3)
    with torch.no_grad():
        ours.log_variance.copy_(s)
        next(direct.parameters()).copy_(s)
    losses = torch.rand(3)
    torch.testing.assert_close(ours.combine(dict(zip(TASKS, losses, strict=True))), direct(losses))


def test_nash_equals_a_direct_call():
    """torchjd stops its convex programmes early, so directions agree to a few per cent."""
    pytest.importorskip("cvxpy")
    pytest.importorskip("ecos")
    for rows in batches():
        wanted = aggregation.NashMTL(n_tasks=3)(rows)
        found = NashMTL(tasks=TASKS).aggregate(rows, TASKS)
        assert float(torch.cosine_similarity(found, wanted, dim=0)) > 0.999
