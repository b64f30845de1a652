"""Layers with a change of their parameters for each task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.layers.norm import LayerNorm as TimmLayerNorm
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.context import current_context
from mtvision.models.adapters.mergeable import Mergeable
from mtvision.models.declarations import Declaration, Declares
from mtvision.models.layers.conditioned import TaskConditioned, current_task


class WeightDelta(nn.Module):
    """A change that is added to one tensor; a fresh one adds exactly 0."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros_like(like))

    def forward(self, base: Tensor) -> Tensor:
        """The changed tensor."""
        return base + self.delta


class Tuned(nn.Module, TaskConditioned, Mergeable, Declares):
    """Base of layers whose parameters keep their names, plus `deltas` of tasks.

    Args:
        layer: whose parameters it takes over.
        deltas: {task: {name of a parameter: its change}}; tasks that are not there use the base.
        tasks: all tasks that have a pass.
    """

    change_prefixes = ("deltas",)

    def __init__(
        self, layer: nn.Module, deltas: Mapping[str, Mapping[str, nn.Module]], tasks: tuple[str, ...]
    ) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)
        self.deltas = nn.ModuleDict({name: nn.ModuleDict(items) for name, items in deltas.items()})
        self.tasks = tasks

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim="changes of weights have the full width; merge them first")

    def tuned(self, name: str) -> Tensor:
        """A parameter as the current pass uses it; that of the base in a pass of no task.

        Raises:
            UnknownNameError: the task has no pass here.
        """
        base: Tensor = self._parameters[name]  # type: ignore[assignment]
        if current_context().task is None:
            return base
        task = current_task(self.tasks, type(self).__name__)
        if task not in self.deltas:
            return base
        changed: Mapping[str, nn.Module] = self.deltas[task]  # type: ignore[assignment]
        if name not in changed:
            return base
        result: Tensor = changed[name](base)
        return result

    def merged(self, task: str | None) -> dict[str, Tensor]:
        """All changed parameters."""
        if task is None or task not in self.deltas:
            return {}
        changed: Mapping[str, nn.Module] = self.deltas[task]  # type: ignore[assignment]
        return {name: self.tuned(name) for name in changed}

    def _bias(self) -> Tensor | None:
        return None if self._parameters["bias"] is None else self.tuned("bias")


class TunedLinear(Tuned):
    """`nn.Linear` with changes."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return F.linear(x, self.tuned("weight"), self._bias())


class TunedConv2d(Tuned, nn.Conv2d):
    """`nn.Conv2d` with changes."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to a map."""
        after: Tensor = self._conv_forward(x, self.tuned("weight"), self._bias())
        return after


class TunedLayerNorm(Tuned):
    """`nn.LayerNorm` with changes."""

    normalized_shape: tuple[int, ...]
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        return F.layer_norm(x, self.normalized_shape, self.tuned("weight"), self._bias(), self.eps)


class TunedBatchNorm2d(Tuned):
    """`nn.BatchNorm2d` with changes of gain and shift; statistics are those of the frozen base."""

    running_mean: Tensor
    running_var: Tensor
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        gain, shift = self.tuned("weight"), self._bias()
        return F.batch_norm(x, self.running_mean, self.running_var, gain, shift, False, 0.0, self.eps)


TUNED: Mapping[type[nn.Module], type[Tuned]] = {
    nn.Linear: TunedLinear,
    nn.Conv2d: TunedConv2d,
    nn.LayerNorm: TunedLayerNorm,
    TimmLayerNorm: TunedLayerNorm,
    nn.BatchNorm2d: TunedBatchNorm2d,
}
"""{class of a layer: the same with changes}."""
NORMS = (nn.LayerNorm, nn.BatchNorm2d)
