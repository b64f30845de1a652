"""Averages over processes of gradients that hooks do not average, e.g. of several passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtvision.steps.problem import StepProblem
from mtvision.steps.step import add_to_grad


def somewhere(problem: StepProblem, here: bool) -> bool:
    """Whether something holds on any process; all of them call this."""
    (share,) = problem.average([torch.tensor(float(here), device=problem.parameters[0][1].device)])
    return bool(share > 0)


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


@contextmanager
def averaged_gradients(problem: StepProblem, owners: Sequence[nn.Parameter]) -> Iterator[None]:
    """Average what is added to `.grad` inside the block over processes, and then add earlier gradients.

    A `jacobian` balancer has averaged already: the mean over processes of equal tensors changes nothing.
    """
    earlier = set_aside(owners)
    yield
    average_over_processes(problem, owners, earlier)
