"""A linear layer with updates: one of all tasks, one of each task, or both."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.context import current_context
from mtvision.models.adapters.low_rank.delta import Delta
from mtvision.models.adapters.mergeable import Mergeable
from mtvision.models.declarations import Declaration, Declares
from mtvision.models.layers.conditioned import (
    TaskConditioned,
    current_task,
    pass_memory,
    stacked_tasks,
)


class UpdatedLinear(nn.Linear, TaskConditioned, Mergeable, Declares):
    """A linear layer whose `weight` and `bias` keep their names, plus updates.

    A pass of no task adds `shared`. A pass of a task adds `own[task]`, and `shared` too with `both`. Where
    the backbone's shared state runs beside the tasks (`TaskPasses.side`), all tasks add to the frozen result
    of that state, as MTLoRA's code does.

    Args:
        linear: whose parameters it takes over.
        shared: update of all tasks.
        own: {task: its update}.
        both: whether a task's result has the shared update too.
        add: norm of the sum of all tasks' results, which is the update of the shared state where states are
            stacked (MTLoRA's `addition`).
    """

    change_prefixes = ("shared", "own", "add")

    def __init__(
        self,
        linear: nn.Linear,
        shared: Delta | None,
        own: Mapping[str, Delta],
        *,
        both: bool,
        add: nn.Module | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(linear.__dict__)
        self.shared, self.own, self.both = shared, nn.ModuleDict(own), both
        self.add = add

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim="low-rank updates have the full width; merge them into weights first")

    def depends_on_task(self) -> bool:
        """Whether tasks have updates of their own."""
        return bool(self.own)

    def forward(self, x: Tensor) -> Tensor:
        """The frozen result (..., out) of `x` (..., in), with what the current pass adds."""
        memory, task = pass_memory(), current_context().task
        if self.add is not None and stacked_tasks():
            return self._stacked(x, self.add)
        if not self.own or task is None:
            frozen = F.linear(x, self.weight, self.bias)
            if self.own and memory is not None:
                memory[self] = frozen
            return frozen if self.shared is None else frozen + self.shared(x, frozen, self)
        name = current_task(list(self.own), type(self).__name__)
        remembered = None if memory is None else memory.get(self)
        frozen = F.linear(x, self.weight, self.bias) if remembered is None else remembered
        result: Tensor = frozen + self.own[name](x, frozen, self)
        if self.both and self.shared is not None:
            result = result + self.shared(x, frozen, self)
        return result

    def _stacked(self, x: Tensor, add: nn.Module) -> Tensor:
        """Results of the shared state and of all tasks, which stand one behind the other in the batch."""
        tasks = stacked_tasks()
        shared, *states = x.chunk(len(tasks) + 1)
        frozen = F.linear(shared, self.weight, self.bias)
        own = [
            frozen + self.own[name](state, frozen, self) for name, state in zip(tasks, states, strict=True)
        ]
        return torch.cat([frozen + add(torch.stack(own).sum(dim=0)), *own])

    def updates(self, task: str | None) -> list[Delta]:
        """What a pass of `task` adds, in the order of `forward`.

        Raises:
            UnknownNameError: the task has no update.
        """
        shared = [] if self.shared is None else [self.shared]
        if not self.own or task is None:
            return shared
        own: list[Delta] = [self.own[task]]  # type: ignore[list-item]
        return own + (shared if self.both else [])

    def merged(self, task: str | None) -> dict[str, Tensor]:
        """The weight with the updates of a pass of `task`."""
        weight: Tensor = self.weight
        for update in self.updates(task):
            weight = weight + update.weight(self)
        return {"weight": weight}
