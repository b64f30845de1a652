"""Gradients for `jacobian` balancers, which use the gradient of every task.

Over the tasks T present in the batch on any process:

1. Roles: a parameter that two or more losses reach is shared. One that a single loss reaches belongs to
   that task (`mtvision.core.roles`). No cut into trunk and heads is assumed. A module of a decoder that
   several tasks use is therefore shared, too.
2. Row t of the (T, P) matrix is the gradient of loss t with respect to the P shared numbers. Parameters of
   one task get the plain gradient of its loss. Parameters with any other role get the sum over losses.
3. All of that is averaged over processes *before* the balancer uses it. Aggregation is not linear. An
   average of per-process aggregates would be another method, which depends on the number of processes.
   A process without labels of a task contributes zeros to its row, exactly as in plain training.
4. The balancer's result is added to `.grad` of the shared parameters, then the auxiliary losses'
   gradients.

The balancer gets gradients without loss scale and accumulation factor. Both are applied to its result.
Thresholds and running averages inside balancers therefore keep their meaning. Accumulated batches are
aggregated one by one. Memory: T·P + one gradient of the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtvision.core.non_finite import NonFiniteGradientError
from mtvision.core.roles import SHARED, find_reach, roles_from_reach, task_of
from mtvision.core.sample import Batch
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import add_to_grad, refuse_empty

_AUXILIARY = "\0auxiliary"  # key of the summed auxiliary losses among those of tasks; no task has this name


@dataclass(frozen=True)
class _Layout:
    """Which gradients are computed and where they go; equal on all processes.

    Args:
        tasks: present on any process, in the balancer's order.
        shared: indices into the list of trainable parameters; columns of the matrix in this order.
        plain: {index of parameter: keys of the losses whose plain gradient it gets}.
    """

    tasks: tuple[str, ...]
    shared: tuple[int, ...]
    plain: Mapping[int, frozenset[str]]


class JacobianGradients:
    """The procedure of the module docstring; keeps the roles found for each set of tasks.

    Roles are found by a dry run of one backward pass per loss, the first time a set of tasks occurs. On
    several processes, all take part as soon as one has a new set. A loss reaches a parameter if it does so on
    any process.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._known: set[tuple[frozenset[str], frozenset[str]]] = set()
        self._reach: dict[frozenset[str], Tensor] = {}

    def __call__(
        self, problem: StepProblem, batch: Batch, report: LossReport
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add gradients to `.grad`; returns the plain sum of all losses and the balancer's weights, for logs.

        Raises:
            ValueError: no process has a label of any task.
            NonFiniteGradientError: a row of the matrix is NaN or infinite; all processes raise it.
        """
        named = [(name, item) for name, item in problem.parameters if item.requires_grad]
        losses = dict(report.losses)
        if losses:
            problem.balancer.check_tasks(list(losses))
        if report.auxiliary:
            losses[_AUXILIARY] = torch.stack(list(report.auxiliary.values())).sum()
        layout = self._layout(problem, named, losses)
        if not layout.tasks:
            raise refuse_empty(batch)
        parameters = [item for _, item in named]
        device = parameters[0].device
        factor = problem.scale(torch.ones((), device=device))
        jacobian, plain = _gradients(problem, parameters, losses, layout)
        jacobian, *plain = problem.average([jacobian, *plain])
        _check_rows(jacobian, layout.tasks)
        weights: dict[str, Tensor] = {}
        if layout.shared:
            gradient = problem.balancer.aggregate(jacobian.div_(factor), layout.tasks) * factor
            weights = problem.balancer.weights()
            sizes = [parameters[index].numel() for index in layout.shared]
            for index, part in zip(layout.shared, torch.split(gradient, sizes), strict=True):
                add_to_grad(parameters[index], part)
        for index, part in zip(layout.plain, plain, strict=True):
            add_to_grad(parameters[index], part)
        values = [loss.detach() for loss in losses.values()]
        return (torch.stack(values).sum() if values else torch.zeros((), device=device)), weights

    def _layout(
        self, problem: StepProblem, named: list[tuple[str, nn.Parameter]], losses: Mapping[str, Tensor]
    ) -> _Layout:
        if not named:
            raise ValueError("the network has no trainable parameter; nothing can be trained.")
        keys = (*problem.balancer.tasks, _AUXILIARY)
        device = named[0][1].device
        flags = torch.tensor([float(key in losses) for key in keys], device=device)
        (somewhere,) = problem.average([flags])
        present = frozenset(key for key, share in zip(keys, somewhere.tolist(), strict=True) if share > 0)
        self._find_reach(problem, named, losses, present)
        table = self._reach[present]
        names = [name for name, _ in named]
        reach = {
            key: {name for name, hit in zip(names, row, strict=True) if hit}
            for key, row in zip(keys, table.tolist(), strict=True)
            if key in present
        }
        extra = reach.pop(_AUXILIARY, set())
        roles = roles_from_reach(reach, names, problem.role_overrides)
        touched = set[str]().union(*reach.values())
        shared = tuple(
            index for index, name in enumerate(names) if roles.get(name) == SHARED and name in touched
        )
        plain = {}
        for index, name in enumerate(names):
            role = roles.get(name)
            owner = None if role is None else task_of(role)
            sources = {key for key, reached in reach.items() if name in reached}
            if role == SHARED:
                sources = set()
            elif owner is not None:
                sources &= {owner}
            if name in extra:
                sources.add(_AUXILIARY)
            if sources:
                plain[index] = frozenset(sources)
        return _Layout(tuple(key for key in keys[:-1] if key in present), shared, plain)

    def _find_reach(
        self,
        problem: StepProblem,
        named: list[tuple[str, nn.Parameter]],
        losses: Mapping[str, Tensor],
        present: frozenset[str],
    ) -> None:
        """Make `self._reach[present]` (losses, parameters) cover this batch; all processes agree on it."""
        device = named[0][1].device
        names = [name for name, _ in named]
        if names != self._names:  # a phase of training froze or thawed something
            self._names, self._known, self._reach = names, set(), {}
        case = (present, frozenset(losses))
        (new,) = problem.average([torch.tensor([float(case not in self._known)], device=device)])
        if not bool(new > 0):
            return
        found = find_reach(losses, named)
        keys = (*problem.balancer.tasks, _AUXILIARY)
        rows = [[float(name in found.get(key, ())) for name in names] for key in keys]
        (share,) = problem.average([torch.tensor(rows, device=device)])
        reached = (share > 0).cpu()
        self._reach[present] = reached | self._reach.get(present, torch.zeros_like(reached))
        self._known.add(case)


def _check_rows(jacobian: Tensor, tasks: tuple[str, ...]) -> None:
    """Refuse a NaN or infinite row, which an aggregator would spread over all tasks.

    Raises:
        NonFiniteGradientError: names the tasks.
    """
    if not jacobian.numel():
        return
    norms = torch.linalg.vector_norm(jacobian, dim=1)
    if bool(norms.isfinite().all()):
        return
    wrong = [name for name, norm in zip(tasks, norms.tolist(), strict=True) if not math.isfinite(norm)]
    raise NonFiniteGradientError(
        f"gradients of the shared parameters are NaN or infinite for the loss of {', '.join(wrong)}; the "
        "weights were not changed. Try a lower learning rate, or bf16 or fp32 instead of fp16."
    )


def _gradients(
    problem: StepProblem, parameters: list[nn.Parameter], losses: Mapping[str, Tensor], layout: _Layout
) -> tuple[Tensor, list[Tensor]]:
    """The (T, P) matrix of the shared parameters and the plain gradients, both of scaled losses."""
    dtype = torch.float32
    for item in parameters:
        dtype = torch.promote_types(dtype, item.dtype)
    sizes = [parameters[index].numel() for index in layout.shared]
    jacobian = torch.zeros(len(layout.tasks), sum(sizes), dtype=dtype, device=parameters[0].device)
    plain = {index: torch.zeros_like(parameters[index]) for index in layout.plain}
    rows = {key: row for row, key in enumerate(layout.tasks)}
    for position, (key, loss) in enumerate(losses.items(), start=1):
        shared = layout.shared if key in rows else ()
        own = [index for index, sources in layout.plain.items() if key in sources]
        wanted = [*shared, *own]
        if not wanted or not loss.requires_grad:
            continue
        gradients = torch.autograd.grad(
            problem.scale(loss),
            [parameters[index] for index in wanted],
            retain_graph=position < len(losses),
            allow_unused=True,
        )
        offset = 0
        for index, gradient in zip(shared, gradients, strict=False):
            size = parameters[index].numel()
            if gradient is not None:
                jacobian[rows[key], offset : offset + size] = gradient.reshape(-1)
            offset += size
        for index, gradient in zip(own, gradients[len(shared) :], strict=True):
            if gradient is not None:
                plain[index] += gradient
    return jacobian, list(plain.values())
