"""Bi-level weights: slopes against exact inner products, and what the step leaves alone."""

import pytest
import torch
from step_toy import NAMES, ToyForward, gradients, make_batch, make_toy

from mtvision.balance import AutoLambda, FixedWeights
from mtvision.core.random import is_held_out
from mtvision.steps import BilevelStep, StepProblem

SHARE, AHEAD = 0.4, 0.05


def parts_of(batch):
    flags = [is_held_out(name, SHARE) for name in batch.ids]
    assert any(flags)
    assert not all(flags)
    return [batch.part([i for i, flag in enumerate(flags) if flag == wanted]) for wanted in (True, False)]


def gradient(network, loss):
    trained = [item for item in network.parameters() if item.requires_grad]
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    return [torch.zeros_like(item) if g is None else g for item, g in zip(trained, found, strict=True)]


def problem_of(network, balancer):
    return StepProblem(ToyForward(network), balancer, list(network.named_parameters()))


def exact_slopes(batch, weight):
    """-α ⟨∇L_t(θ), ∇L_held(θ - α Σ λ ∇L)⟩, by autograd."""
    held, rest = parts_of(batch)
    network = make_toy()
    losses = ToyForward(network)(rest).losses
    rows = {name: gradient(network, ToyForward(network)(rest).losses[name]) for name in losses}
    step = gradient(network, weight * sum(losses.values()))
    ahead = make_toy()
    with torch.no_grad():
        for item, g in zip((p for p in ahead.parameters() if p.requires_grad), step, strict=True):
            item.sub_(AHEAD * g)
    direction = gradient(ahead, sum(ToyForward(ahead)(held).losses.values()))
    return {
        name: -AHEAD * sum((a * b).sum() for a, b in zip(row, direction, strict=True))
        for name, row in rows.items()
    }


def test_slopes_are_those_of_the_held_out_loss():
    batch = make_batch(8)
    network, balancer = make_toy(), AutoLambda(tasks=NAMES, initial=0.3)
    before = [item.detach().clone() for item in network.parameters()]
    logs = BilevelStep(SHARE, AHEAD)(problem_of(network, balancer), batch)
    for name, slope in exact_slopes(batch, 0.3).items():
        torch.testing.assert_close(logs[f"slope/{name}"], slope.detach(), rtol=1e-3, atol=1e-8)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_the_batch_is_trained_with_the_new_weights():
    batch = make_batch(8)
    network, balancer = make_toy(), AutoLambda(tasks=NAMES, initial=0.3, lr=0.1)
    BilevelStep(SHARE, AHEAD)(problem_of(network, balancer), batch)
    weights = balancer.memory["weights"]
    assert sorted(set((weights - 0.3).abs().round(decimals=3).tolist())) == [0.1]  # a first step of Adam
    other = make_toy()
    losses = ToyForward(other)(parts_of(batch)[1]).losses
    (sum(weights[NAMES.index(name)].detach() * loss for name, loss in losses.items())).backward()
    for name, expected in gradients(other).items():
        found = gradients(network)[name]
        if expected is not None:
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_kind_of_images_alone_changes_no_weight(share):
    balancer = AutoLambda(tasks=NAMES)
    logs = BilevelStep(share, AHEAD)(problem_of(make_toy(), balancer), make_batch(3))
    assert balancer.memory == {}
    assert not any(name.startswith("slope/") for name in logs)


def test_other_rules_are_refused():
    with pytest.raises(ValueError, match="FixedWeights needs 'scalar', which BilevelStep does not serve"):
        BilevelStep().check_balancer(FixedWeights(tasks=NAMES))
