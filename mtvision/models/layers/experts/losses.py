"""Losses that keep experts in use. Each takes a `Routing` and returns a scalar.

Statistics that a loss does not read linearly are those of the batch over all processes, see
`mtvision.core.context.batch_mean`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtvision.core.context import batch_mean
from mtvision.models.layers.experts.router import Routing


def squared_variation(values: Tensor) -> Tensor:
    """Unbiased variance over the squared mean, of one value per expert; 0 for a single expert."""
    if len(values) == 1:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + 1e-10)


def importance(routing: Routing) -> Tensor:
    """(E) sums of the experts' weights over tokens."""
    return torch.zeros_like(routing.probabilities).scatter(1, routing.experts, routing.gates).sum(dim=0)


def load(routing: Routing, deviation: float) -> Tensor:
    """(E) tokens of each expert: expected ones under noise, else counted ones, which have no gradient.

    The expectation is over a new draw of one expert's noise, with the logits of all others as they were. It
    compares logits with logits. (The released code compares them with probabilities.)

    Args:
        routing: of N tokens.
        deviation: standard deviation of the noise in the logits; 0 = none.
    """
    experts, top_k = routing.logits.shape[1], routing.experts.shape[1]
    chosen = torch.zeros_like(routing.logits).scatter(1, routing.experts, 1.0)
    if deviation <= 0 or top_k >= experts:
        return chosen.sum(dim=0)
    best = routing.noisy.topk(top_k + 1, dim=-1).values
    threshold = torch.where(chosen.bool(), best[:, top_k:], best[:, top_k - 1 : top_k])
    expected: Tensor = torch.special.ndtr((routing.logits - threshold) / deviation)
    return expected.sum(dim=0)


def balance_loss(routing: Routing, deviation: float) -> Tensor:
    """cv²(importance) + cv²(load) (Shazeer et al., ICLR 2017; M³ViT)."""
    used = (importance(routing), load(routing, deviation))
    return torch.stack([squared_variation(batch_mean(item)) for item in used]).sum()


def switch_loss(routing: Routing) -> Tensor:
    """E · Σ_e (share of tokens that go to e)·(mean probability of e); k if experts are used evenly.

    Switch Transformer (Fedus et al., JMLR 2022), with k experts per token as in PRISM's released code. A
    weight of 0 does not count.
    """
    used = torch.zeros_like(routing.probabilities).scatter(
        1, routing.experts, (routing.gates > 0).to(routing.gates)
    )
    shares, means = batch_mean(used.mean(dim=0)), batch_mean(routing.probabilities.mean(dim=0))
    return routing.probabilities.shape[1] * (shares * means).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean squared log-sum-exp of the logits (ST-MoE, Zoph et al., 2022)."""
    return routing.logits.logsumexp(dim=-1).square().mean()


def mutual_information_loss(means: Sequence[Tensor]) -> Tensor:
    """Minus the mutual information of tasks and experts (Mod-Squad, Chen et al., CVPR 2023).

    Args:
        means: for each task, the mean (E) of its tokens' probabilities; tasks are equally likely.
    """
    joint = batch_mean(torch.stack(list(means))) / len(means)
    independent = joint.sum(dim=0, keepdim=True) * joint.sum(dim=1, keepdim=True)
    # Where an expert is closed to a task, 0·log 0 counts as 0 and has no gradient.
    closed = joint <= 0
    ratio = independent.masked_fill(closed, 1) / joint.masked_fill(closed, 1)
    return (joint * ratio.log()).sum()
