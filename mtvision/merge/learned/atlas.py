"""aTLAS (Zhang et al., NeurIPS 2024)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.core.values import Count, Positive, Rate
from mtvision.merge.learned.descent import Descent, minimise
from mtvision.merge.learned.mixture import LearnedCoefficients, Mixture
from mtvision.merge.learned.objective import Objective
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import Parents, State
from mtvision.merge.vectors import TaskVectors, merge_tensors


@MERGERS.register_module()
def atlas(
    base: State,
    parents: Parents,
    *,
    problem: MergeProblem,
    objective: Literal["labels", "entropy", "parents"] = "labels",
    partitions: Positive = 1,
    scale: float | Mapping[str, float] = 0.0,
    steps: Count = 500,
    lr: Rate = 1e-2,
    weights: Mapping[str, float] | None = None,
    seed: Count = 0,
) -> dict[str, Any]:
    """Coefficients per task vector and parameter block, from 0, learned from a few labelled images.

    Zhang et al., "Knowledge composition using task vectors with learned anisotropic scaling", NeurIPS 2024.
    θ = θ_0 + Σ_t Λ_t τ_t, where Λ_t is block-diagonal with one number per block. A block is one tensor. With
    `partitions` K > 1, every block is divided at random into K parts with a number each.

    The authors' code moves only matrices where K > 1, and divides equal shapes equally. Here all tensors
    move, and every one has a division of its own. The learning rate is ours.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        problem: images and tasks; the command makes it.
        objective: `labels`: the tasks' losses; `entropy` and `parents`: as in `adamerging`.
        partitions: K.
        scale: the coefficients at the start.
        steps: updates of Adam, one batch each.
        lr: its learning rate.
        weights: {task: factor of its loss}, 1 by default.
        seed: of the divisions.

    Raises:
        MergeError: the states do not fit, nothing is held out, or a loss is not finite.
        UnknownNameError: a coefficient or weight of no parent.
    """
    vectors = TaskVectors(base, parents)
    problem.check_parents(parents)
    lambdas = LearnedCoefficients(vectors, "layer", scale, parts=partitions)
    mixture = Mixture(vectors, problem.device)
    goal = Objective(problem, objective, mixture.parent, weights)

    def rule(name: str, deltas: Tensor) -> Tensor:
        if partitions == 1:
            return lambdas.scale(name, deltas)
        entries = division(seed, name, deltas.shape[1:], partitions).to(deltas.device)
        return (lambdas.of(name).to(deltas)[:, entries] * deltas).sum(dim=0)

    facts = minimise(
        problem,
        Descent("atlas", [([lambdas.values], lr)]),
        lambda batch: goal(mixture.state(rule, lambdas.shares), batch),
        steps,
    )
    problem.record.update({**facts, "coefficients": lambdas.to_plain()})
    lambdas.values.requires_grad_(False)
    return merge_tensors(vectors, rule, lambdas.shares, whole=partitions > 1)


def division(seed: int, name: str, shape: torch.Size, parts: int) -> Tensor:
    """Part 0..parts-1 of every entry, int64; sizes of parts differ by at most 1.

    >>> sorted(division(0, "w", torch.Size((2, 3)), 2).flatten().tolist())
    [0, 0, 0, 1, 1, 1]
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    stream = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return (torch.randperm(shape.numel(), generator=stream) % parts).reshape(shape)
