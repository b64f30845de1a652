"""Concrete subspace learning (Tang et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.core.values import Count, Rate
from mtvision.merge.learned.descent import Descent, batches, losses_of
from mtvision.merge.learned.mixture import LearnedCoefficients, Mixture
from mtvision.merge.learned.objective import Objective
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import Parents, State
from mtvision.merge.vectors import TaskVectors, merge_tensors

EDGE = 1e-6
"""Uniform draws are kept this far from 0 and 1, where their logit is infinite."""


@MERGERS.register_module()
def concrete(
    base: State,
    parents: Parents,
    *,
    problem: MergeProblem,
    per: Literal["task", "layer"] = "layer",
    objective: Literal["entropy", "parents", "labels"] = "entropy",
    scale: float | Mapping[str, float] = 0.3,
    steps: Count = 2000,
    lr: Rate = 1e-3,
    coefficient_lr: Rate = 1e-3,
    temperature: Rate = 0.5,
    rescale: Literal["tensors", "network"] = "tensors",
    weights: Mapping[str, float] | None = None,
    seed: Count = 0,
) -> dict[str, Any]:
    """AdaMerging inside a subspace: one relaxed mask over the entries of all task vectors is learned too.

    Tang et al., "Concrete subspace learning based interference elimination", 2023:

        θ = θ_0 + m ⊙ Σ_t λ_t τ_t,   m ∝ sigmoid((logit(u) + x) / temperature),   u ~ U(0, 1)

    Mask logits x begin at 0. Every step draws u. It moves the coefficients first, then x with the new ones,
    both by the same batch. Images and objective are those of `adamerging`.

    A mask is divided by its mean: over every tensor (the authors' code), or over the network. In the first
    case single numbers always have the mask 1. The result takes u = 1/2, so it does not depend on a draw; the
    authors' code draws once more.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        problem: images and tasks; the command makes it.
        per: what has a coefficient of its own, see `adamerging`.
        objective: see `adamerging`.
        scale: the coefficients at the start.
        steps: updates of Adam, one batch each.
        lr: learning rate of the mask logits.
        coefficient_lr: that of the coefficients.
        temperature: of the relaxed masks.
        rescale: over what a mask has the mean 1.
        weights: {task: factor of its term}, 1 by default.
        seed: of the draws.

    Raises:
        MergeError: the states do not fit, nothing is held out, or a loss is not finite.
        UnknownNameError: a coefficient or weight of no parent.
    """
    vectors = TaskVectors(base, parents)
    problem.check_parents(parents)
    lambdas = LearnedCoefficients(vectors, per, scale)
    mixture = Mixture(vectors, problem.device)
    goal = Objective(problem, objective, mixture.parent, weights)
    masks = _Masks(mixture.shapes, temperature, rescale, seed)
    inner = Descent("concrete", [([lambdas.values], coefficient_lr)])
    outer = Descent("concrete", [(list(masks.logits.values()), lr)])
    for batch in batches(problem, steps):
        drawn = masks.drawn()
        for descent, found in ((inner, _detached(masks.of(drawn))), (outer, None)):
            mask = masks.of(drawn) if found is None else found
            state = mixture.state(_masked(lambdas, mask), lambdas.shares)
            descent.step(goal(state, batch))
    final = _detached(masks.of(None))
    lambdas.values.requires_grad_(False)
    coefficients = lambdas.to_plain()
    problem.record.update({**losses_of(outer), "coefficients": coefficients, "mask_range": _range(final)})
    return merge_tensors(vectors, _masked(lambdas, final), lambdas.shares, whole=True)


def _masked(lambdas: LearnedCoefficients, masks: Mapping[str, Tensor]) -> Any:
    """The rule of a masked sum of scaled task vectors."""
    return lambda name, deltas: lambdas.scale(name, deltas) * masks[name].to(deltas)


def _range(masks: Mapping[str, Tensor]) -> list[float]:
    """The smallest and the largest entry."""
    return [min(float(x.min()) for x in masks.values()), max(float(x.max()) for x in masks.values())]


def _detached(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: item.detach() for name, item in masks.items()}


class _Masks:
    """Relaxed Bernoulli masks, one entry per weight.

    Args:
        shapes: {name: a tensor like the mask}.
        temperature: of the relaxation.
        rescale: `tensors` or `network`.
        seed: of the draws.
    """

    def __init__(self, shapes: Mapping[str, Tensor], temperature: float, rescale: str, seed: int) -> None:
        self.logits = {name: torch.zeros_like(item).requires_grad_() for name, item in shapes.items()}
        self._temperature, self._whole = temperature, rescale == "network"
        self._stream = torch.Generator().manual_seed(seed)

    def drawn(self) -> dict[str, Tensor]:
        """{name: logit of uniform draws}, made on the CPU so that devices agree."""
        return {
            name: torch.rand(item.shape, generator=self._stream, dtype=torch.float64)
            .clamp(EDGE, 1 - EDGE)
            .logit()
            .to(item)
            for name, item in self.logits.items()
        }

    def of(self, drawn: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """{name: mask} of given draws; None is u = 1/2 everywhere."""
        relaxed = {
            name: torch.sigmoid((item if drawn is None else item + drawn[name]) / self._temperature)
            for name, item in self.logits.items()
        }
        if not self._whole:
            return {name: item / item.mean() for name, item in relaxed.items()}
        count = sum(item.numel() for item in relaxed.values())
        total = torch.stack([item.sum() for item in relaxed.values()]).sum()
        return {name: item * (count / total) for name, item in relaxed.items()}
