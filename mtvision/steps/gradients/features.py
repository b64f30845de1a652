"""Gradients for rules that read gradients of the encoder's features (the -UB variants).

Z_t is the gradient of loss t with respect to every level of the pyramid, over the images of all processes.
The rule turns the products ⟨Z_s, Z_t⟩ into weights w. The shared parameters get the gradient of Σ w_t L_t, by
one backward pass. Parameters of a single task get the plain gradient of its loss, times the balancer's
`own_weights`.

A pass over the decoder per task and one over the whole network take the place of T passes over the network.
No matrix of T x P numbers is stored. Levels are side exits, so that a path through a later level counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.context import current_context, use_context
from mtvision.core.observer import OBSERVER
from mtvision.core.pyramid import Pyramid
from mtvision.core.sample import Batch
from mtvision.steps.gradients.diagnostics import relations
from mtvision.steps.gradients.jacobian import scaled_gradients, show_losses, total_of
from mtvision.steps.gradients.layout import Layout, Layouts, add_plain, factor_of, losses_of, trainable
from mtvision.steps.gradients.matrix import check_rows
from mtvision.steps.gradients.weighted import add_weighted
from mtvision.steps.problem import StepProblem
from mtvision.steps.step import refuse_empty, summary


class _Levels:
    """Observer of a forward pass that keeps the pyramid's levels with their graph."""

    def __init__(self) -> None:
        self.maps: tuple[Tensor, ...] = ()

    def __call__(self, network: Any, pyramid: Pyramid, logits: Mapping[str, Tensor]) -> None:
        self.maps = pyramid.maps


class FeatureGradients:
    """The procedure of the module docstring; keeps the roles found for each set of tasks."""

    def __init__(self) -> None:
        self._layouts = Layouts()

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """Add gradients to `.grad`; returns what a step logs.

        Raises:
            ValueError: no process has a label of any task, or the network shows no features.
            NonFiniteGradientError: the gradient of a loss is NaN or infinite; all processes raise it.
        """
        levels = _Levels()
        context = current_context()
        with use_context(replace(context, extra={**context.extra, OBSERVER: levels})):
            report = problem.forward(batch)
        if report.losses and not any(item.requires_grad for item in levels.maps):
            raise ValueError(
                f"{type(problem.balancer).__name__} reads gradients of features, but this network shows none "
                "(mtvision.core.observer), or its encoder is frozen. Use a 'gramian' or 'jacobian' balancer."
            )
        named = trainable(problem)
        losses = losses_of(problem, report)
        layout = self._layouts(problem, batch, named, losses)
        if not layout.tasks:
            raise refuse_empty(batch)
        parameters = [item for _, item in named]
        factor = factor_of(problem, parameters[0].device)
        gramian, plain = _products(problem, parameters, losses, layout, levels.maps, factor)
        show_losses(problem, report, layout)
        with scaled_gradients(problem.balancer, factor):
            row_weights = problem.balancer.weigh(gramian, layout.tasks)
        weights = dict(zip(layout.tasks, row_weights.detach().unbind(), strict=True))
        add_weighted(problem, parameters, report, layout, weights)
        add_plain(parameters, layout, plain, problem.balancer.own_weights())
        seen = relations(gramian, layout.tasks) if problem.shows_gradients else {}
        return {**summary(report, weights, total_of(losses, parameters[0].device)), **seen}


def _products(
    problem: StepProblem,
    parameters: Sequence[nn.Parameter],
    losses: Mapping[str, Tensor],
    layout: Layout,
    levels: Sequence[Tensor],
    factor: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """Z Zᵀ (T, T) of the whole batch, and the plain gradients of scaled losses averaged over processes.

    With R processes the loss of the whole batch is the mean of theirs. Its gradient at the features of one
    process is 1/R of that process's own.
    """
    maps = [item for item in levels if item.requires_grad]
    width = sum(item.numel() for item in maps)
    rows = [torch.zeros(width, device=parameters[0].device) for _ in layout.tasks]
    plain = [torch.zeros_like(parameters[item.index]) for item in layout.plain]
    for key, loss in losses.items():
        own = [place for place, item in enumerate(layout.plain) if key in item.sources]
        read = maps if key in layout.tasks else []
        wanted = [*read, *(parameters[layout.plain[place].index] for place in own)]
        if not wanted or not loss.requires_grad:
            continue
        found = torch.autograd.grad(problem.scale(loss), wanted, retain_graph=True, allow_unused=True)
        if read:
            parts = [
                torch.zeros_like(item) if part is None else part
                for item, part in zip(maps, found, strict=False)
            ]
            flat = torch.cat([part.flatten() for part in parts])
            flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
            rows[layout.tasks.index(key)] = flat if factor is None else flat / factor
        for place, gradient in zip(own, found[len(read) :], strict=True):
            if gradient is not None:
                plain[place] += gradient
    dtype = max((row.dtype for row in rows), key=lambda item: torch.finfo(item).bits)
    stacked = torch.stack([row.to(dtype) for row in rows])
    gramian, *plain = problem.average([stacked @ stacked.T, *plain])
    check_rows(gramian, layout.tasks)
    return gramian / len(problem.gather(0)), plain
