"""Low-rank updates that one hypernetwork makes from embeddings of the task and of the layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.adapters.low_rank.adapter import LinearUpdates
from mtvision.models.adapters.low_rank.delta import Delta, check_rank
from mtvision.models.adapters.mergeable import SharedChange
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.layers.conditioned import TaskConditioned, current_task


class Hypernetwork(nn.Module, SharedChange):
    """Embeddings of tasks and layers to matrices A and B; B starts at 0.

    Args:
        tasks: how many.
        embedding: numbers per task and per layer.
        hidden: inner width.
    """

    def __init__(self, tasks: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.tasks = nn.Parameter(torch.randn(tasks, embedding))
        self.layers = nn.ParameterList()
        self.inner = nn.Sequential(nn.Linear(2 * embedding, hidden), nn.ReLU())
        self.A, self.B = nn.ModuleDict(), nn.ModuleDict()

    def add(self, inputs: int, outputs: int, rank: int) -> tuple[int, str]:
        """Make room for a layer; layers of one shape share the last linear layers."""
        width: int = self.inner[0].out_features  # type: ignore[assignment]
        key = f"{inputs}x{outputs}x{rank}"
        if key not in self.A:
            first, last = nn.Linear(width, rank * inputs), nn.Linear(width, rank * outputs)
            bound = 1 / math.sqrt(inputs)
            nn.init.uniform_(first.bias, -bound, bound)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.A[key], self.B[key] = first, last
        self.layers.append(nn.Parameter(torch.randn(self.tasks.shape[1])))
        return len(self.layers) - 1, key

    def forward(self, task: int, layer: int, key: str) -> tuple[Tensor, Tensor]:
        """A (rank, in) and B (out, rank) of a layer for a task."""
        inputs, outputs, rank = map(int, key.split("x"))
        inner = self.inner(torch.cat([self.tasks[task], self.layers[layer]]))
        return self.A[key](inner).view(rank, inputs), self.B[key](inner).view(outputs, rank)


class Generated(Delta, TaskConditioned):
    """B·A·scale with matrices of a hypernetwork, which belongs to the backbone.

    Args:
        source: the hypernetwork.
        place: number and shape of the layer there.
        tasks: names.
        scale: factor.
    """

    def __init__(
        self, source: Hypernetwork, place: tuple[int, str], tasks: Sequence[str], scale: float
    ) -> None:
        super().__init__()
        self._source = (source,)  # in a tuple, so that it is no part of this module
        self.place, self.tasks, self.scale = place, tuple(tasks), scale

    def forward(self, x: Tensor, frozen: Tensor, layer: nn.Linear) -> Tensor:
        """The update (..., out) of the current task."""
        del frozen, layer
        first, last = self._matrices()
        return F.linear(F.linear(x, first), last) * self.scale

    def weight(self, layer: nn.Linear) -> Tensor:
        """B·A·scale."""
        del layer
        first, last = self._matrices()
        return last @ first * self.scale

    def _matrices(self) -> tuple[Tensor, Tensor]:
        task = self.tasks.index(current_task(self.tasks, "HyperLowRank"))
        made: tuple[Tensor, Tensor] = self._source[0](task, *self.place)
        return made


@ADAPTERS.register_module()
class HyperLowRank(LinearUpdates):
    """Low-rank updates per task from one hypernetwork (after Mahabadi et al., ACL 2021).

    The hypernetwork reads an embedding of the task and one of the layer, so that tasks share what makes their
    updates. Its application to low-rank matrices of a vision backbone is ours.

    Args:
        shared: {glob of linear layers: rank} of the updates that it makes.
        embedding: numbers per task and per layer.
        hidden: inner width of the hypernetwork.
        scale: factor of updates.
        train: globs of the backbone's parameters that are trained as well.

    Raises:
        ValueError: no layer is named, a glob matches none, a rank is not positive, or another HyperLowRank
            stands before it.
    """

    depend = True

    def __init__(
        self,
        *,
        shared: Mapping[str, int],
        embedding: Positive = 16,
        hidden: Positive = 32,
        scale: float = 1.0,
        train: Sequence[str] = (),
    ) -> None:
        super().__init__(shared=shared, own={}, both=True, side=False, train=train)
        self.embedding, self.hidden, self.scale = embedding, hidden, scale
        self._made = Hypernetwork(0, 1, 1)

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with updates and a hypernetwork."""
        if any(isinstance(item, Hypernetwork) for item in backbone.modules()):
            raise ValueError(
                "HyperLowRank: the backbone has a hypernetwork already. Name all layers in one adapter."
            )
        self._made = Hypernetwork(len(tasks), self.embedding, self.hidden)
        backbone = super().apply(backbone, tasks)
        backbone.add_module("hypernetwork", self._made.to(next(backbone.parameters())))
        return backbone

    def update(self, path: str, layer: nn.Linear, rank: int, tasks: Sequence[str], *, own: bool) -> Delta:
        """Matrices of the hypernetwork."""
        del own
        check_rank(self.label, path, layer, rank)
        place = self._made.add(layer.in_features, layer.out_features, rank)
        return Generated(self._made, place, tasks, self.scale)
