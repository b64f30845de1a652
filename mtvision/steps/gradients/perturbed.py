"""Gradients of single tasks at weights that were moved for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtvision.core.sample import Batch
from mtvision.steps.gradients.layout import Layout
from mtvision.steps.gradients.statistics import kept_buffers
from mtvision.steps.problem import LossReport, StepProblem

Moves = Mapping[int, Tensor]
"""{index of parameter: what is added to it}."""


def one_task(batch: Batch, name: str) -> Batch:
    """The batch with labels of a single task."""
    return Batch(batch.image, {name: batch.labels[name]}, {name: batch.present[name]}, batch.meta)


@contextmanager
def moved(parameters: Sequence[nn.Parameter], moves: Moves) -> Iterator[None]:
    """Add `moves` to the parameters inside the block; they are put back to the last bit."""
    before = {index: parameters[index].detach().clone() for index in moves}
    with torch.no_grad():
        for index, move in moves.items():
            parameters[index].add_(move.view_as(parameters[index]).to(parameters[index]))
    try:
        yield
    finally:
        with torch.no_grad():
            for index, value in before.items():
                parameters[index].copy_(value)


def gradient_of(
    problem: StepProblem,
    batch: Batch,
    indices: Sequence[int],
    total: Callable[[LossReport], Tensor | None],
) -> dict[int, Tensor]:
    """{index: gradient} of a scalar of a batch's losses, mean over processes; `.grad` stays as it is.

    Running statistics of norms stay as they are. All processes call this.

    Args:
        problem: of the step.
        batch: with labels of any tasks, or of none.
        indices: of the parameters.
        total: the scalar; None = there is none here, so this process adds zeros.
    """
    wanted = [problem.parameters[index][1] for index in indices]
    found: list[Tensor | None] = [None] * len(wanted)
    factor = problem.scale(torch.ones((), device=batch.image.device))
    with kept_buffers(problem):  # until the backward pass is over: it checks that nobody changed them
        loss = total(problem.forward(batch) if batch.labels else LossReport({}))
        if loss is not None and loss.requires_grad:
            found = list(torch.autograd.grad(problem.scale(loss), wanted, allow_unused=True))
    filled = [
        torch.zeros_like(item) if part is None else part / factor
        for item, part in zip(wanted, found, strict=True)
    ]
    return dict(zip(indices, problem.average(filled), strict=True))


def ascent(
    parameters: Sequence[nn.Parameter], gradients: Moves, rho: float, *, adaptive: bool
) -> dict[int, Tensor]:
    """The move of length ρ along gradients: ρ g/‖g‖, or the adaptive ρ w² g / ‖|w| g‖.

    Args:
        parameters: all trainable ones.
        gradients: {index: gradient}, one norm over all of them.
        rho: ρ.
        adaptive: as ASAM (Kwon et al., ICML 2021).
    """
    if not gradients:
        return {}
    scaled, sizes = {}, {}
    for index, gradient in gradients.items():
        weight = parameters[index].detach()
        sizes[index] = weight.abs() if adaptive else torch.ones_like(weight)
        scaled[index] = gradient.view_as(weight) * sizes[index]
    norms = [torch.linalg.vector_norm(item) for item in scaled.values()]
    factor = rho / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-12)
    return {index: factor * item * sizes[index] for index, item in scaled.items()}


def rows_of(parameters: Sequence[nn.Parameter], layout: Layout, row: Tensor) -> dict[int, Tensor]:
    """A gradient (P,) of the shared parameters as {index: gradient}."""
    sizes = [parameters[index].numel() for index in layout.shared]
    return dict(zip(layout.shared, torch.split(row, sizes), strict=True))


def gradient_at(
    problem: StepProblem,
    batch: Batch,
    name: str,
    parameters: Sequence[nn.Parameter],
    layout: Layout,
    moves: Moves,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Gradient of one task at moved weights, of the scaled loss, averaged over processes.

    Running statistics of norms stay as they are. All processes call this.

    Args:
        problem: of the step.
        batch: with labels of any tasks.
        name: of the task.
        parameters: all trainable ones.
        layout: of the batch.
        moves: of the weights.

    Returns:
        The shared gradient (P,), and {index: gradient} of the parameters of the task.
    """
    own = [item.index for item in layout.plain if item.owner == name]
    wanted = [*layout.shared, *own]
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if name in batch.labels and wanted:
        with moved(parameters, moves), kept_buffers(problem):
            loss = problem.forward(one_task(batch, name)).losses[name]
            targets = [parameters[index] for index in wanted]
            found = torch.autograd.grad(problem.scale(loss), targets, allow_unused=True)
    filled = [
        torch.zeros_like(parameters[index]) if part is None else part
        for index, part in zip(wanted, found, strict=True)
    ]
    averaged = problem.average(filled)
    shared = [item.flatten() for item in averaged[: len(layout.shared)]]
    flat = torch.cat(shared) if shared else parameters[0].new_zeros(0)
    return flat, dict(zip(own, averaged[len(layout.shared) :], strict=True))


@torch.no_grad()
def slope_along(
    problem: StepProblem,
    batch: Batch,
    name: str,
    parameters: Sequence[nn.Parameter],
    direction: Moves,
    epsilon: float,
) -> Tensor:
    """Derivative of one task's loss along a direction, by two passes without gradients, over processes.

    (L(w + ε z) − L(w − ε z)) / 2ε.
    """
    values = []
    for sign in (1.0, -1.0):
        moves = {index: sign * epsilon * item for index, item in direction.items()}
        value = torch.zeros((), device=parameters[0].device)
        if name in batch.labels:
            with moved(parameters, moves), kept_buffers(problem):
                value = problem.forward(one_task(batch, name)).losses[name]
        values.append(value)
    plus, minus = problem.average(values)
    return (plus - minus) / (2 * epsilon)
