"""What is added to the result of a frozen linear layer: the members of the low-rank family."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.layers.conditioned import TaskConditioned, current_task


class Delta(nn.Module):
    """Base of updates; a fresh one adds exactly 0."""

    @abstractmethod
    def forward(self, x: Tensor, frozen: Tensor, layer: nn.Linear) -> Tensor:
        """What is added to `frozen` (..., out), the result of the frozen `layer` for `x` (..., in)."""

    def weight(self, layer: nn.Linear) -> Tensor:
        """(out, in) to add to the frozen weight, of the current task where it depends on one.

        Raises:
            ValueError: no weight does the same as this update.
        """
        del layer
        raise ValueError(
            f"{type(self).__name__} is not linear, so it cannot be merged into weights. Keep the adapter."
        )


def check_rank(user: str, path: str, layer: nn.Linear, rank: int) -> None:
    """Refuse a product of matrices that has more inner features than the layer has.

    Args:
        user: the adapter, for the message.
        path: of the layer.
        layer: that gets an update.
        rank: of the update.

    Raises:
        ValueError: it is larger than the layer's inputs or outputs.
    """
    most = min(layer.in_features, layer.out_features)
    if rank > most:
        raise ValueError(
            f"{user}: rank {rank} for {path}, whose weight has rank {most} at most ({layer.in_features} to "
            f"{layer.out_features} features). Give at most {most}, e.g. by a glob of its own in front."
        )


class Matrices(Delta):
    """B·A·scale (LoRA, Hu et al., ICLR 2022): `A` is random, `B` starts at 0.

    Args:
        inputs: features read.
        outputs: features written.
        rank: rows of `A`.
        scale: factor; LoRA's alpha/rank.
        dropout: of the input.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale, self.dropout = scale, nn.Dropout(dropout)

    def forward(self, x: Tensor, frozen: Tensor, layer: nn.Linear) -> Tensor:
        """The update (..., out)."""
        del frozen, layer
        return F.linear(F.linear(self.dropout(x), self.A), self.B) * self.scale

    def weight(self, layer: nn.Linear) -> Tensor:
        """B·A·scale."""
        del layer
        return self.B @ self.A * self.scale


class Bottleneck(Delta):
    """Houlsby adapter (ICML 2019): down, GELU, up, on the layer's result; `up` starts at 0.

    Args:
        features: of the result.
        width: inside.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.normal_(self.down.weight, std=0.02)
        for item in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(item)

    def forward(self, x: Tensor, frozen: Tensor, layer: nn.Linear) -> Tensor:
        """The update (..., features)."""
        del x, layer
        update: Tensor = self.up(F.gelu(self.down(frozen)))
        return update


class Skills(Delta, TaskConditioned):
    """Low-rank skills that all tasks share, mixed by a learned assignment (C-Poly, Wang et al., ICLR 2024).

    A task's weights are the sigmoids of its row of `assignment`, divided by their sum.

    Args:
        inputs: features read.
        outputs: features written.
        rank: of a skill.
        skills: how many.
        tasks: names, one row each.
        scale: factor.
    """

    def __init__(
        self, inputs: int, outputs: int, rank: int, skills: int, tasks: Sequence[str], scale: float
    ) -> None:
        super().__init__()
        self.tasks, self.scale, self.rank = tuple(tasks), scale, rank
        self.A = nn.Parameter(torch.empty(skills, rank, inputs))
        self.B = nn.Parameter(torch.zeros(skills, outputs, rank))
        self.assignment = nn.Parameter(torch.empty(len(self.tasks), skills))
        nn.init.uniform_(self.assignment, -1e-3, 1e-3)
        for skill in self.A.detach():
            nn.init.kaiming_uniform_(skill, a=math.sqrt(5))

    def weights(self) -> Tensor:
        """How much of each skill the current task takes; sums to 1.

        Raises:
            ValueError: the pass is of no task.
            UnknownNameError: the task has no row.
        """
        row = self.assignment[self.tasks.index(current_task(self.tasks, "PolySkills"))].sigmoid()
        return row / row.sum()

    def forward(self, x: Tensor, frozen: Tensor, layer: nn.Linear) -> Tensor:
        """The update (..., out) of the current task."""
        del frozen, layer
        inner = F.linear(x, self.A.flatten(0, 1)) * self.weights().repeat_interleave(self.rank)
        return F.linear(inner, self.B.transpose(0, 1).flatten(1)) * self.scale

    def weight(self, layer: nn.Linear) -> Tensor:
        """The sum of all skills, weighted for the current task."""
        del layer
        return torch.einsum("k,kor,kri->oi", self.weights(), self.B, self.A) * self.scale
