"""The matrix of the gradients of all tasks, and where it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtvision.core.non_finite import NonFiniteGradientError
from mtvision.steps.gradients.exchange import RowExchange
from mtvision.steps.gradients.layout import Layout, common_dtype
from mtvision.steps.problem import StepProblem


@dataclass(frozen=True)
class Storage:
    """How a matrix of gradients is made and where it is kept.

    Args:
        chunk: backward passes that run together, by `torch.vmap`. More is faster on a GPU with small batches
            and takes as many times the memory of one pass. Modules without a rule for `vmap` need 1.
        offload: keep the matrix in the memory of the CPU. Rows are averaged over processes one by one, on the
            device.
    """

    chunk: int = 1
    offload: bool = False


DEVICE = Storage()


def matrix_of_gradients(
    problem: StepProblem,
    parameters: list[nn.Parameter],
    losses: Mapping[str, Tensor],
    layout: Layout,
    storage: Storage = DEVICE,
) -> tuple[Tensor, list[Tensor]]:
    """The (T, P) matrix of the shared parameters and the plain gradients, of scaled losses, over processes.

    Raises:
        NonFiniteGradientError: a row of the matrix is NaN or infinite.
    """
    sizes = [parameters[index].numel() for index in layout.shared]
    device = parameters[0].device
    jacobian = torch.empty(
        len(layout.tasks),
        sum(sizes),
        dtype=common_dtype(parameters),
        device="cpu" if storage.offload else device,
        pin_memory=storage.offload and device.type == "cuda",
    )
    plain = [torch.zeros_like(parameters[item.index]) for item in layout.plain]
    wanted = _wanted(losses, layout)
    exchange = RowExchange(problem, layout.tasks, wanted, jacobian.__getitem__, apart=True, reuse=True)
    for name, row in zip(layout.tasks, jacobian, strict=True):
        if name not in wanted:
            row.zero_()
    for key, gradients in _passes(problem, parameters, losses, wanted, storage.chunk):
        shared = len(layout.shared) if key in layout.tasks else 0
        if shared:
            _fill(torch.split(jacobian[layout.tasks.index(key)], sizes), gradients)
        places = [place for place, item in enumerate(layout.plain) if key in item.sources]
        for place, gradient in zip(places, gradients[shared:], strict=True):
            if gradient is not None:
                plain[place] += gradient
        del gradients  # before those of the next loss are computed
        if layout.shared and not storage.offload:
            exchange.complete(key)
    if layout.shared:
        _average_rows(problem, jacobian, exchange, device, storage)
    plain = problem.average(plain)
    check_rows(jacobian, layout.tasks)
    return jacobian, plain


def _average_rows(
    problem: StepProblem, jacobian: Tensor, exchange: RowExchange, device: torch.device, storage: Storage
) -> None:
    """Put the means over processes into the rows."""
    if not storage.offload:
        for row, mean in zip(jacobian, exchange.means(), strict=True):
            if mean.data_ptr() != row.data_ptr():
                row.copy_(mean)
    elif len(problem.gather(0)) > 1:
        for row in jacobian:
            row.copy_(problem.average([row.to(device, copy=True)])[0])


def _wanted(losses: Mapping[str, Tensor], layout: Layout) -> dict[str, list[int]]:
    """{loss: indices of the parameters whose gradients are computed}, of the losses that have any."""
    wanted = {}
    for key, loss in losses.items():
        own = [item.index for item in layout.plain if key in item.sources]
        indices = [*(layout.shared if key in layout.tasks else ()), *own]
        if indices and loss.requires_grad:
            wanted[key] = indices
    return wanted


def _passes(
    problem: StepProblem,
    parameters: Sequence[nn.Parameter],
    losses: Mapping[str, Tensor],
    wanted: Mapping[str, list[int]],
    chunk: int,
) -> Iterator[tuple[str, Sequence[Tensor | None]]]:
    """(loss, its gradients of the wanted parameters) of every loss, `chunk` passes at a time."""
    keys = list(wanted)
    for start in range(0, len(keys), chunk):
        together = {key: wanted[key] for key in keys[start : start + chunk]}
        yield from _backward(problem, parameters, losses, together, keep=start + chunk < len(keys))


def _backward(
    problem: StepProblem,
    parameters: Sequence[nn.Parameter],
    losses: Mapping[str, Tensor],
    wanted: Mapping[str, list[int]],
    *,
    keep: bool,
) -> Iterator[tuple[str, Sequence[Tensor | None]]]:
    """(loss, its gradients of the wanted parameters), of backward passes that run together.

    Args:
        problem: of the step.
        parameters: all trainable ones.
        losses: of this process.
        wanted: {loss: indices of parameters}.
        keep: keep the graph for further passes.
    """
    if len(wanted) == 1:
        ((key, indices),) = wanted.items()
        targets = [parameters[index] for index in indices]
        yield (
            key,
            torch.autograd.grad(problem.scale(losses[key]), targets, retain_graph=keep, allow_unused=True),
        )
        return
    every = sorted({index for indices in wanted.values() for index in indices})
    stacked = torch.stack([problem.scale(losses[key]) for key in wanted])
    batched = torch.autograd.grad(
        stacked,
        [parameters[index] for index in every],
        torch.eye(len(wanted), dtype=stacked.dtype, device=stacked.device),
        retain_graph=keep,
        allow_unused=True,
        is_grads_batched=True,
    )
    by_index = dict(zip(every, batched, strict=True))
    for row, (key, indices) in enumerate(wanted.items()):
        found = [by_index[index] for index in indices]
        yield key, [None if item is None else item[row] for item in found]


def _fill(parts: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Write the first gradients into the parts of a row; zeros where there is none."""
    for part, gradient in zip(parts, gradients, strict=False):
        if gradient is None:
            part.zero_()
        else:
            part.copy_(gradient.reshape(-1))


def check_rows(jacobian: Tensor, tasks: tuple[str, ...]) -> None:
    """Refuse a NaN or infinite row, which an aggregator would spread over all tasks.

    Raises:
        NonFiniteGradientError: names the tasks.
    """
    if not jacobian.numel():
        return
    check_squares(torch.linalg.vector_norm(jacobian, dim=1), tasks)


def check_squares(sizes: Tensor, tasks: Sequence[str]) -> None:
    """Refuse gradients whose size is NaN or infinite.

    Args:
        sizes: (T,), norms or their squares.
        tasks: whose they are.

    Raises:
        NonFiniteGradientError: names the tasks.
    """
    if bool(sizes.isfinite().all()):
        return
    wrong = [name for name, size in zip(tasks, sizes.tolist(), strict=True) if not math.isfinite(size)]
    raise NonFiniteGradientError(
        f"gradients of the shared parameters are NaN or infinite for the loss of {', '.join(wrong)}; the "
        "weights were not changed. Try a lower learning rate, or bf16 or fp32 instead of fp16."
    )
