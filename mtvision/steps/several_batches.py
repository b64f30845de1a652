"""Training with rules that need gradients of independent parts of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from mtvision.balance.balancer import Balancer
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.steps.gradients.jacobian import show_losses, total_of, unscaled
from mtvision.steps.gradients.layout import (
    Layout,
    Layouts,
    add_flat,
    add_plain,
    factor_of,
    losses_of,
    trainable,
)
from mtvision.steps.gradients.matrix import matrix_of_gradients
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, refuse_empty, summary


@STEPS.register_module()
class SeveralBatchesStep(Step):
    """One matrix of gradients for each of K parts of a batch, for MoDo, SDMGrad and the like.

    Image i of a process belongs to part i mod K. Each part has its own forward pass. Parameters of a single
    task get the mean of their gradients over the parts. Matrices are averaged over processes before the
    balancer uses them. If K divides the batch, N processes with B images each do what one with N * B does.

    The papers draw K batches of full size per step. A batch of K times the size gives the same.
    """

    serves = frozenset({"several_batches"})
    divides_batches = True

    def __init__(self) -> None:
        self._layouts = Layouts()

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`; logged losses are means over the parts.

        Raises:
            ValueError: the batch has fewer images than the balancer needs parts, or no label.
            ValueError: a part lacks a task.
        """
        self.check_balancer(problem.balancer)
        count = problem.balancer.batches
        if len(batch) < count:
            raise ValueError(
                f"{type(problem.balancer).__name__} needs {count} parts of a batch, but a process has "
                f"{len(batch)} images. Raise train_data.batch_size or lower training.micro_batches."
            )
        named = trainable(problem)
        parameters = [item for _, item in named]
        device = parameters[0].device
        factor = factor_of(problem, device)
        jacobians: list[Tensor] = []
        reports: list[LossReport] = []
        totals: list[Tensor] = []
        layouts: list[Layout] = []
        for index in range(count):
            part = batch.part(list(range(index, len(batch), count)))
            report = problem.forward(part)
            losses = losses_of(problem, report)
            layout = self._layouts(problem, part, named, losses)
            if not layout.tasks:
                raise refuse_empty(batch)
            problem.balancer.require_all(layout.tasks, "a rule that reads one batch (UPGrad, MGDA, ...)")
            layouts.append(layout)
            jacobian, plain = matrix_of_gradients(problem, parameters, losses, layout)
            add_plain(parameters, layout, [item / count for item in plain], {})
            jacobians.append(unscaled(jacobian, factor))
            reports.append(report)
            totals.append(total_of(losses, device))
            show_losses(problem, report, layout)
        if layouts[0].shared:
            gradient = problem.balancer.aggregate_parts(jacobians, layouts[0].tasks)
            add_flat(parameters, layouts[0].shared, gradient, factor)
        mean = _mean_report(reports)
        return summary(mean, problem.balancer.weights(), torch.stack(totals).mean())

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect one forward and one backward pass."""
        return True


def _mean_report(reports: list[LossReport]) -> LossReport:
    """Each loss averaged over the parts that have it."""

    def mean(tables: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        names = dict.fromkeys(name for table in tables for name in table)
        return {
            name: torch.stack([table[name].detach() for table in tables if name in table]).mean()
            for name in names
        }

    return LossReport(mean([item.losses for item in reports]), mean([item.auxiliary for item in reports]))
