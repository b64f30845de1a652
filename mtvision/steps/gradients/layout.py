"""Which gradients a step computes for rules over gradients, and where they go.

A parameter that two or more losses reach is shared. One that a single loss reaches belongs to that task
(`mtvision.core.roles`). No cut into trunk and heads is assumed. A module of a decoder that several tasks use
is therefore shared, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtvision.core.roles import SHARED, find_reach, roles_from_reach, task_of
from mtvision.core.sample import Batch
from mtvision.steps.gradients.compiled import eager_report, is_compiled
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import add_to_grad

AUXILIARY = "\0auxiliary"
"""Key of the summed auxiliary losses among those of tasks; no task has this name."""


@dataclass(frozen=True)
class Plain:
    """A gradient that is not balanced.

    Args:
        index: of the parameter.
        sources: keys of the losses whose gradients are added up.
        owner: the task that the parameter belongs to; None for other roles and for auxiliary losses.
        alone: no other task's loss reaches it.
    """

    index: int
    sources: frozenset[str]
    owner: str | None = None
    alone: bool = False


@dataclass(frozen=True)
class Layout:
    """Which gradients are computed and where they go; equal on all processes.

    Args:
        tasks: present on any process, in the balancer's order.
        shared: indices into the list of trainable parameters; columns of the matrix in this order.
        plain: the other gradients.
    """

    tasks: tuple[str, ...]
    shared: tuple[int, ...]
    plain: tuple[Plain, ...]


def trainable(problem: StepProblem) -> list[tuple[str, nn.Parameter]]:
    """The network's trainable parameters with their names.

    Raises:
        ValueError: there is none.
    """
    named = [(name, item) for name, item in problem.parameters if item.requires_grad]
    if not named:
        raise ValueError("the network has no trainable parameter; nothing can be trained.")
    return named


def losses_of(problem: StepProblem, report: LossReport) -> dict[str, Tensor]:
    """The losses of a report, with the sum of the auxiliary ones under `AUXILIARY`."""
    losses = dict(report.losses)
    if losses:
        problem.balancer.check_tasks(list(losses))
    if report.auxiliary:
        losses[AUXILIARY] = torch.stack(list(report.auxiliary.values())).sum()
    return losses


def factor_of(problem: StepProblem, device: torch.device) -> Tensor | None:
    """What `problem.scale` multiplies by; None if it leaves losses as they are."""
    one = torch.ones((), device=device)
    factor = problem.scale(one)
    return None if factor is one else factor


def common_dtype(parameters: Sequence[nn.Parameter]) -> torch.dtype:
    """The widest type of the parameters, at least float32."""
    dtype = torch.float32
    for item in parameters:
        dtype = torch.promote_types(dtype, item.dtype)
    return dtype


def add_flat(
    parameters: Sequence[nn.Parameter], indices: Sequence[int], gradient: Tensor, factor: Tensor | None
) -> None:
    """Add a gradient (P,), times the factor, to `.grad` of the parameters, which may keep views of it."""
    gradient = gradient if factor is None else gradient * factor
    sizes = [parameters[index].numel() for index in indices]
    for index, part in zip(indices, torch.split(gradient, sizes), strict=True):
        add_to_grad(parameters[index], part, keep=True)


def add_plain(
    parameters: Sequence[nn.Parameter],
    layout: Layout,
    gradients: Sequence[Tensor],
    own: Mapping[str, Tensor],
) -> None:
    """Add the gradients of `layout.plain`, times the factor of the task that owns the parameter."""
    sums: dict[int, Tensor] = {}
    for item, gradient in zip(layout.plain, gradients, strict=True):
        if item.owner is not None and item.owner in own:
            gradient = gradient * own[item.owner].to(gradient)
        sums[item.index] = sums[item.index] + gradient if item.index in sums else gradient
    for index, total in sums.items():
        add_to_grad(parameters[index], total)


class Layouts:
    """The layout for each set of tasks.

    Roles are found in the graphs of the losses, the first time a set of tasks occurs. On
    several processes, all take part as soon as one has a new set. A loss reaches a parameter if it does so on
    any process.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._known: set[tuple[frozenset[str], frozenset[str]]] = set()
        self._reach: dict[frozenset[str], Tensor] = {}

    def __call__(
        self,
        problem: StepProblem,
        batch: Batch,
        named: list[tuple[str, nn.Parameter]],
        losses: Mapping[str, Tensor],
    ) -> Layout:
        """The layout for the losses that any process has; all of them call this.

        Args:
            problem: of the step.
            batch: whose losses they are. It is passed again, without compiled code, where the network is
                compiled and the set of tasks is new.
            named: the trainable parameters.
            losses: of this process, with their graph.
        """
        keys = (*problem.balancer.tasks, AUXILIARY)
        device = named[0][1].device
        flags = torch.tensor([float(key in losses) for key in keys], device=device)
        (somewhere,) = problem.average([flags])
        present = frozenset(key for key, share in zip(keys, somewhere.tolist(), strict=True) if share > 0)
        self._find_reach(problem, batch, named, losses, present)
        table = self._reach[present]
        names = [name for name, _ in named]
        reach = {
            key: {name for name, hit in zip(names, row, strict=True) if hit}
            for key, row in zip(keys, table.tolist(), strict=True)
            if key in present
        }
        extra = reach.pop(AUXILIARY, set())
        roles = roles_from_reach(reach, names, problem.role_overrides)
        touched = set[str]().union(*reach.values())
        shared = tuple(
            index for index, name in enumerate(names) if roles.get(name) == SHARED and name in touched
        )
        plain = []
        for index, name in enumerate(names):
            role = roles.get(name)
            owner = None if role is None else task_of(role)
            sources = {key for key, reached in reach.items() if name in reached}
            if role == SHARED:
                sources = set()
            elif owner is not None:
                sources &= {owner}
            if sources:
                alone = owner is not None and sum(name in reached for reached in reach.values()) == 1
                plain.append(Plain(index, frozenset(sources), owner, alone))
            if name in extra:
                plain.append(Plain(index, frozenset({AUXILIARY})))
        return Layout(tuple(key for key in keys[:-1] if key in present), shared, tuple(plain))

    def _find_reach(
        self,
        problem: StepProblem,
        batch: Batch,
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
        (compiled,) = problem.average([torch.tensor([float(is_compiled(losses.values()))], device=device)])
        if bool(compiled > 0):
            losses = losses_of(problem, eager_report(problem, batch)) if batch.labels else {}
        found = find_reach(losses, named)
        keys = (*problem.balancer.tasks, AUXILIARY)
        rows = [[float(name in found.get(key, ())) for name in names] for key in keys]
        (share,) = problem.average([torch.tensor(rows, device=device)])
        reached = (share > 0).cpu()
        self._reach[present] = reached | self._reach.get(present, torch.zeros_like(reached))
        self._known.add(case)
