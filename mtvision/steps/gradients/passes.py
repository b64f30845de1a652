"""Gradients of several passes over one batch, averaged over processes once at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtvision.steps.problem import StepProblem
from mtvision.steps.step import add_to_grad


def set_aside(owners: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Take gradients away, e.g. of earlier micro-batches, which are averaged over processes already."""
    earlier = [item.grad for item in owners]
    for item in owners:
        item.grad = None
    return earlier


def average_over_processes(
    problem: StepProblem, owners: Sequence[nn.Parameter], earlier: list[Tensor | None]
) -> None:
    """Average this batch's gradients over processes and add the earlier ones.

    A parameter that no process used keeps no gradient, so that the optimizer leaves it alone.
    """
    if not owners:
        return
    flags = torch.tensor([float(item.grad is not None) for item in owners], device=owners[0].device)
    used = (problem.average([flags])[0] > 0).tolist()
    chosen = [item for item, hit in zip(owners, used, strict=True) if hit]
    fresh = [torch.zeros_like(item) if item.grad is None else item.grad for item in chosen]
    averaged = iter(problem.average(fresh))
    for item, hit, before in zip(owners, used, earlier, strict=True):
        item.grad = before
        if hit:
            add_to_grad(item, next(averaged))
