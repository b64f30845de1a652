"""Gradients of losses with given weights, and weights that serve several batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from mtvision.balance.balancer import Balancer, copied
from mtvision.steps.gradients.exchange import GradientExchange
from mtvision.steps.gradients.layout import Layout
from mtvision.steps.gradients.sums import set_aside
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import add_to_grad

_SMALL = 1e-3
"""Weights below this fraction of the largest are not divided by."""


def add_weighted(
    problem: StepProblem,
    parameters: Sequence[nn.Parameter],
    report: LossReport,
    layout: Layout,
    weights: Mapping[str, Tensor],
) -> None:
    """Add the gradient of the weighted losses to the shared parameters, averaged over processes."""
    shared = [parameters[index] for index in layout.shared]
    if not shared:
        return
    terms = [weights[name].to(loss) * loss for name, loss in report.losses.items() if loss.requires_grad]
    means = averaged_gradients(problem, _total(problem, terms), shared)
    for item, gradient in zip(shared, means, strict=True):
        add_to_grad(item, gradient, keep=True)


def add_with_weights(
    problem: StepProblem,
    parameters: Sequence[nn.Parameter],
    losses: Mapping[str, Tensor],
    layout: Layout,
    weights: Mapping[str, float],
    own: Mapping[str, float],
) -> None:
    """Add the gradients of all parameters for known weights, averaged over processes.

    One backward pass serves the shared parameters and those of single tasks. The latter are divided by the
    task's weight. Tasks of small weight, auxiliary losses and other roles get passes of their own, which stop
    at the parameters concerned.

    Args:
        problem: of the step.
        parameters: all trainable ones.
        losses: of this process.
        layout: of the batch.
        weights: {task: factor of its loss} for shared parameters.
        own: {task: factor of its loss} for its own parameters; 1 where it is absent.
    """
    limit = _SMALL * max(abs(weights[name]) for name in layout.tasks)
    factors = [1.0] * len(layout.shared)
    together = list(layout.shared)
    alone: list[tuple[int, float, frozenset[str]]] = []
    for item in layout.plain:
        factor = own.get(item.owner, 1.0) if item.owner is not None else 1.0
        if item.alone and item.owner is not None and abs(weights[item.owner]) > limit:
            together.append(item.index)
            factors.append(factor / weights[item.owner])
        else:
            alone.append((item.index, factor, item.sources))
    targets = [parameters[index] for index in together]
    terms = [weights[name] * loss for name, loss in losses.items() if name in weights and loss.requires_grad]
    total = _total(problem, terms)
    means = averaged_gradients(problem, total, targets, factors=factors, retain_graph=bool(alone))
    rest = [torch.zeros_like(parameters[index]) for index, _, _ in alone]
    for key, loss in losses.items():
        places = [place for place, (_, _, sources) in enumerate(alone) if key in sources]
        if not places or not loss.requires_grad:
            continue
        wanted = [parameters[alone[place][0]] for place in places]
        parts = torch.autograd.grad(problem.scale(loss), wanted, retain_graph=True, allow_unused=True)
        for place, part in zip(places, parts, strict=True):
            if part is not None:
                rest[place].add_(part, alpha=alone[place][1])
    indices = [*together, *(index for index, _, _ in alone)]
    for index, gradient in zip(indices, [*means, *problem.average(rest)], strict=True):
        add_to_grad(parameters[index], gradient, keep=True)


def _total(problem: StepProblem, terms: Sequence[Tensor]) -> list[Tensor]:
    """The scaled sum of `terms`, if there is one."""
    return [problem.scale(torch.stack(list(terms)).sum())] if terms else []


def averaged_gradients(
    problem: StepProblem,
    outputs: Sequence[Tensor] | Sequence[GradientEdge],
    targets: Sequence[nn.Parameter],
    *,
    seeds: Sequence[Tensor] | None = None,
    factors: Sequence[float] | None = None,
    retain_graph: bool = False,
) -> list[Tensor]:
    """Gradients of the sum of `outputs` over processes, zeros where there is none.

    They are tensors without another use, and `.grad` is as before. (What `torch.autograd.grad` returns may be
    shared or expanded, `.grad` never is.) On several processes the first gradients are sent while others are
    computed.

    Args:
        problem: of the step.
        outputs: scalars, or edges of the graph.
        targets: parameters.
        seeds: gradients of the outputs; ones if not given.
        factors: of the gradients of each target; ones if not given.
        retain_graph: keep the graph.
    """
    earlier = set_aside(targets)
    exchange = GradientExchange(problem, targets, factors or [1.0] * len(targets))
    if outputs and targets:
        with exchange.watching():
            torch.autograd.backward(outputs, seeds, retain_graph=retain_graph, inputs=list(targets))
    means = exchange.means()
    for item, before in zip(targets, earlier, strict=True):
        item.grad = before
    return means


class Reuse(nn.Module):
    """The last weights of a rule over gradients, which serve the following batches as well.

    Args:
        every: the rule is asked once in so many batches; one that has other tasks counts as a new start.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.memory: dict[str, Any] = {"age": 0, "weights": {}, "own": {}}

    def next(self, tasks: Sequence[str]) -> tuple[dict[str, float], dict[str, float]] | None:
        """Weights of shared and of own parameters for the next batch; None if the rule is to be asked."""
        self.memory["age"] += 1
        if self.memory["age"] >= self.every or set(self.memory["weights"]) != set(tasks):
            return None
        return dict(self.memory["weights"]), dict(self.memory["own"])

    def remember(self, balancer: Balancer, tasks: Sequence[str], *, zero: bool) -> None:
        """Keep what the rule has just given.

        Args:
            balancer: the rule.
            tasks: of the batch.
            zero: all gradients were zero, so that it may have given no weights.

        Raises:
            ValueError: its result is not a weighted sum of gradients.
        """
        weights, own = balancer.weights(), balancer.own_weights()
        if not set(tasks) <= weights.keys():
            self.memory = {"age": 0, "weights": {}, "own": {}}
            if zero:
                return
            raise ValueError(
                f"step.every: {type(balancer).__name__} gives no weights that the next batches could reuse, "
                "because its result is no weighted sum of gradients. Leave `every` at 1."
            )
        self.memory = {
            "age": 0,
            "weights": {name: float(weights[name]) for name in tasks},
            "own": {name: float(own[name]) for name in tasks if name in own},
        }

    def get_extra_state(self) -> dict[str, Any]:
        """A copy of `memory` (part of `state_dict`)."""
        copy: dict[str, Any] = copied(self.memory)
        return copy

    def set_extra_state(self, state: Any) -> None:
        """Counterpart of `get_extra_state`."""
        self.memory = copied(state)
