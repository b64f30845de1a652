"""Gradients for rules over losses: one scalar, one backward pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtvision.core.sample import Batch
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import add_to_grad, refuse_empty


def means_over_processes(problem: StepProblem, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{task: mean of its loss over processes}, without a graph, in the order of the balancer's tasks.

    A process without labels of a task contributes zero, as it does to the gradient. Tasks that no process has
    are left out. All processes call this.
    """
    names = problem.balancer.tasks
    given = [losses[name].detach() for name in names if name in losses]
    zero = torch.zeros_like(given[0]) if given else _zero(problem)
    values = torch.stack([losses[name].detach().to(zero) if name in losses else zero for name in names])
    flags = torch.tensor([float(name in losses) for name in names], device=values.device)
    means, somewhere = problem.average([values, flags])
    return {
        name: mean
        for name, mean, share in zip(names, means.unbind(), somewhere.tolist(), strict=True)
        if share > 0
    }


def _zero(problem: StepProblem) -> Tensor:
    """The zero that stands for the losses of a process without labels."""
    _, parameter = problem.parameters[0]
    return torch.zeros((), device=parameter.device)


def combined(problem: StepProblem, losses: Mapping[str, Tensor]) -> Tensor:
    """The balancer's scalar of the losses of this process.

    Rules with `common_losses` see the values of the means over processes. The graph stays that of this
    process, so that gradients averaged over processes are those of the rule applied to the means.
    """
    if not problem.balancer.common_losses:
        return problem.balancer.combine(losses)
    means = means_over_processes(problem, losses)
    given = {
        name: losses[name] + (mean - losses[name].detach()) if name in losses else mean
        for name, mean in means.items()
    }
    return problem.balancer.combine(given)


def scalar_gradients(problem: StepProblem, batch: Batch, report: LossReport) -> Tensor:
    """One backward pass of `combine(losses) + Σ auxiliary`; returns that sum.

    Data-parallel hooks average the network's gradients, this function those of the balancer's parameters.

    Raises:
        ValueError: the batch has no label of any task.
    """
    if not report.losses:
        raise refuse_empty(batch)
    total = combined(problem, report.losses)
    for loss in report.auxiliary.values():
        total = total + loss
    learnt = [item for item in problem.balancer.parameters() if item.requires_grad]
    earlier = [item.grad for item in learnt]
    for item in learnt:
        item.grad = None
    problem.backward(total)
    _average_own(problem, learnt, earlier)
    return total


def _average_own(problem: StepProblem, learnt: list[nn.Parameter], earlier: list[Tensor | None]) -> None:
    """Average this batch's gradients of the balancer's parameters over processes; put earlier ones back."""
    if not learnt:
        return
    fresh = [torch.zeros_like(item) if item.grad is None else item.grad for item in learnt]
    for item, gradient, before in zip(learnt, problem.average(fresh), earlier, strict=True):
        item.grad = before
        add_to_grad(item, gradient)
