"""Parametrizations of one tensor by a mixture of members, one per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mtvision.core.context import current_context
from mtvision.core.naming import UnknownNameError

Kind = Literal["low_rank", "whole"]


def shares(preference: Mapping[str, float] | None, tasks: Sequence[str]) -> list[float]:
    """A preference as numbers that add up to 1, in the order of the tasks.

    Args:
        preference: {task: weight >= 0}; a task that is left out has 0. None = all alike.
        tasks: that there are.

    Raises:
        UnknownNameError: a name that is no task.
        ValueError: a negative weight, or no positive one.

    >>> shares({"depth": 3.0, "edge": 1.0}, ["edge", "depth", "normals"])
    [0.25, 0.75, 0.0]
    """
    if preference is None:
        return [1 / len(tasks)] * len(tasks)
    for name, weight in preference.items():
        if name not in tasks:
            raise UnknownNameError("task of the preference", name, tasks)
        if not weight >= 0:
            raise ValueError(f"preference of {name}: expected a weight of at least 0, got {weight}.")
    total = sum(preference.values())
    if not total:
        raise ValueError(f"preference: all weights are 0. Give one of {', '.join(tasks)} a positive weight.")
    return [float(preference.get(name, 0.0)) / total for name in tasks]


class Members(nn.Module):
    """Base of the two kinds; reads the preference of the context.

    Args:
        tasks: one member each.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def shares(self) -> list[float]:
        """What each member counts now."""
        return shares(current_context().preference, self.tasks)


class WholeMembers(Members):
    """Σ α_t W_t (Dimitriadis et al., ICML 2023); all members start as the tensor that is replaced."""

    def forward(self, *members: Tensor) -> Tensor:
        """The mixture, of the shape of a member."""
        total = torch.zeros_like(members[0])
        for share, member in zip(self.shares(), members, strict=True):
            total = total + share * member
        return total

    def right_inverse(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The members of a tensor."""
        return tuple(tensor.clone() for _ in self.tasks)


class LowRankMembers(Members):
    """W + Σ α_t B_t A_t; `A` is random and `B` 0, so that a fresh one changes nothing.

    Tensors with one axis get vectors instead, which start at 0. Kernels are taken as matrices of their first
    axis and all others.

    Args:
        tasks: one member each.
        shape: of the tensor.
        rank: of every member.
    """

    def __init__(self, tasks: Sequence[str], shape: Sequence[int], rank: int) -> None:
        super().__init__(tasks)
        rows, columns = shape[0], int(torch.Size(shape[1:]).numel())
        self.matrix = len(shape) > 1
        if self.matrix:
            inner = min(rank, rows, columns)
            self.A = nn.Parameter(torch.empty(len(tasks), inner, columns))
            self.B = nn.Parameter(torch.zeros(len(tasks), rows, inner))
            nn.init.normal_(self.A, std=columns**-0.5)
        else:
            self.B = nn.Parameter(torch.zeros(len(tasks), rows))

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor with what the members add."""
        share = torch.tensor(self.shares(), dtype=tensor.dtype, device=tensor.device)
        if self.matrix:
            return tensor + torch.einsum("t,tri,tic->rc", share, self.B, self.A).view_as(tensor)
        return tensor + share @ self.B


def add_members(module: nn.Module, name: str, tasks: Sequence[str], kind: Kind, rank: int = 4) -> None:
    """Replace a parameter of a module by a mixture of members; the value stays what it is.

    Args:
        module: changed in place.
        name: of its parameter, e.g. `weight`.
        tasks: one member each.
        kind: `whole`, one tensor per task; `low_rank`, one common tensor and a small update per task.
        rank: of low-rank members.
    """
    parameter = module.get_parameter(name)
    if kind == "whole":
        members: Members = WholeMembers(tasks)
    else:
        members = LowRankMembers(tasks, parameter.shape, rank).to(parameter)
    parametrize.register_parametrization(module, name, members)
