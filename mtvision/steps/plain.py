"""One forward pass, one update direction: the step of ordinary training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.steps.jacobian import JacobianGradients
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, add_to_grad, refuse_empty, summary


@STEPS.register_module()
class PlainStep(Step):
    """Forward, losses, balancer, gradients.

    `scalar` balancers: one backward pass of `combine(losses) + Σ auxiliary`; data-parallel hooks average the
    network's gradients, the step those of the balancer's own parameters.

    `jacobian` balancers: see `mtvision.steps.jacobian`. `total` in the logs is then the plain sum of losses.
    """

    def __init__(self) -> None:
        self._jacobian = JacobianGradients()

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`."""
        report = problem.forward(batch)
        if problem.balancer.needs == "jacobian":
            total, weights = self._jacobian(problem, batch, report)
        else:
            total = self._scalar(problem, batch, report)
            weights = problem.balancer.weights()
        return summary(report, weights, total)

    def _scalar(self, problem: StepProblem, batch: Batch, report: LossReport) -> Tensor:
        if not report.losses:
            raise refuse_empty(batch)
        total = problem.balancer.combine(report.losses)
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
