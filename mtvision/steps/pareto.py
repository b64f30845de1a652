"""Training of a manifold of preferences: every pass draws a preference, which weighs weights and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.context import current_context, use_context
from mtvision.core.random import generator
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Count, Factor, Positive, Rate
from mtvision.steps.gradients.scalar import combined
from mtvision.steps.gradients.sums import average_over_processes, set_aside
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, refuse_empty, summary


@STEPS.register_module()
class ParetoStep(nn.Module, Step):
    """PaMaL (Dimitriadis, Frossard and Fleuret, ICML 2023), for networks with the adapter `ParetoManifold`.

    Each pass draws a preference α from a Dirichlet distribution. The weights are Σ α_t W_t and the loss is
    T · Σ α_t L_t, with the balancer's weights on L_t. The gradient is the mean over the passes of a batch.

    With `ordering` > 0 passes are sorted by α_t for every task t. A loss that grows with α_t is penalised by
    log(mean(exp(relu(L_t(larger α_t) - L_t(smaller α_t))))). The released code has the opposite sign, which
    is not copied.

    Draws depend on `seed` and the number of calls, which is in the checkpoint. All processes draw alike.

    Args:
        passes: preferences per batch.
        concentration: of the Dirichlet distribution; 1 = uniform, larger = nearer to equal shares.
        ordering: weight of the penalty.
        seed: of the draws.
    """

    serves = frozenset({"scalar"})
    calls: Tensor

    def __init__(
        self, *, passes: Positive = 3, concentration: Rate = 1.0, ordering: Factor = 0.0, seed: Count = 0
    ) -> None:
        super().__init__()
        self.passes, self.concentration, self.ordering, self.seed = passes, concentration, ordering, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect one forward and one backward pass, here are several."""
        return True

    def preferences(self, tasks: Sequence[str], call: int) -> list[dict[str, float]]:
        """What is drawn in a call."""
        drawn = generator(self.seed, 0, call).dirichlet([self.concentration] * len(tasks), self.passes)
        return [dict(zip(tasks, row.tolist(), strict=True)) for row in drawn]

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`. Logged losses are means over the passes, and `auxiliary/ordering`."""
        self.check_balancer(problem.balancer)
        drawn = self.preferences(problem.balancer.tasks, int(self.calls))
        self.calls += 1
        owners = [item for _, item in problem.parameters] + list(problem.balancer.parameters())
        earlier = set_aside(owners)
        reports: list[LossReport] = []
        totals: list[Tensor] = []
        for preference in drawn:
            with use_context(replace(current_context(), preference=preference)):
                report = problem.forward(batch)
            if not report.losses:
                raise refuse_empty(batch)
            count = len(preference)
            weighted = {name: count * preference[name] * loss for name, loss in report.losses.items()}
            total = combined(problem, weighted)
            for loss in report.auxiliary.values():
                total = total + loss
            total = total / len(drawn)
            if not self.ordering:
                problem.backward(total)
                report = LossReport({name: loss.detach() for name, loss in report.losses.items()})
            reports.append(report)
            totals.append(total)
        whole = torch.stack(totals).sum()
        means = {
            name: torch.stack([item.losses[name] for item in reports]).mean() for name in reports[0].losses
        }
        auxiliary: dict[str, Tensor] = {}
        if self.ordering:
            auxiliary["ordering"] = self.ordering * disorder(drawn, [item.losses for item in reports])
            whole = whole + auxiliary["ordering"]
            problem.backward(whole)
        average_over_processes(problem, owners, earlier)
        return summary(LossReport(means, auxiliary), problem.balancer.weights(), whole)


def disorder(preferences: Sequence[dict[str, float]], losses: Sequence[dict[str, Tensor]]) -> Tensor:
    """The penalty of losses that grow with their task's preference, summed over tasks; 0 if none does.

    >>> fine = [{"a": torch.tensor(2.0)}, {"a": torch.tensor(1.0)}]
    >>> float(disorder([{"a": 0.2}, {"a": 0.8}], fine)) == 0
    True
    """
    total = torch.zeros_like(next(iter(losses[0].values())))
    for name in losses[0]:
        order = sorted(range(len(losses)), key=lambda index: preferences[index][name])
        grown = [torch.relu(losses[high][name] - losses[low][name]) for low, high in pairwise(order)]
        if grown:
            total = total + torch.stack(grown).logsumexp(dim=0) - torch.tensor(float(len(grown))).log()
    return total
