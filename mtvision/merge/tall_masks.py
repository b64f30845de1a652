"""TALL-masks (Wang et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import MERGERS
from mtvision.core.values import Share
from mtvision.merge.coefficients import Coefficients
from mtvision.merge.states import Parents, State
from mtvision.merge.ties import TiesRule
from mtvision.merge.vectors import Rule, TaskVectors, by_task, merge_tensors


@MERGERS.register_module()
def tall_masks(
    base: State,
    parents: Parents,
    *,
    task: str,
    threshold: float | Mapping[str, float] = 0.4,
    of: Literal["sum", "ties"] = "sum",
    density: Share = 0.2,
) -> dict[str, Any]:
    """The network of one task: the merged vector where that task's mask is on.

    Wang et al., "Localizing task information", ICML 2024, section 4, equations 3 to 5:

        m_t = 1[ |τ_t| > λ_t |τ_MTL - τ_t| ],   θ = θ_0 + m_t ⊙ τ_MTL

    All tasks together need one merged vector and one bit per weight and task. The comparison is strict.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        task: whose network is made.
        threshold: λ, or {task: λ_t}; the authors choose from 0.2 to 0.6.
        of: τ_MTL is the sum of task vectors, or the sum of TIES (entries that agree with the elected sign).
        density: of TIES.

    Raises:
        MergeError: the states do not fit.
        UnknownNameError: no parent is called `task`.

    >>> import torch
    >>> parents = {"a": {"w": torch.tensor([2.0, 0.1])}, "b": {"w": torch.tensor([0.1, 2.0])}}
    >>> tall_masks({"w": torch.zeros(2)}, parents, task="a")
    {'w': tensor([2.1000, 0.0000])}
    """
    vectors = TaskVectors(base, parents)
    index = index_of(task, vectors)
    lambdas = Coefficients(threshold, None, vectors).of("")
    unified = merged_vector(vectors, of, density)

    def rule(name: str, deltas: Tensor) -> Tensor:
        total = unified(name, deltas)
        return torch.where(task_masks(deltas, total, lambdas)[index], total, 0)

    return merge_tensors(vectors, rule, lambda _: one_hot(index, vectors))


def task_masks(deltas: Tensor, total: Tensor, lambdas: Tensor) -> Tensor:
    """(T, ...) masks of task vectors (T, ...), their merged vector (...) and thresholds (T,)."""
    return deltas.abs() > by_task(lambdas, deltas) * (total - deltas).abs()


def merged_vector(vectors: TaskVectors, of: str, density: float) -> Rule:
    """τ_MTL of a tensor: the sum of task vectors, or the sum of what TIES keeps."""
    if of == "sum":
        return lambda _, deltas: deltas.sum(dim=0)
    ties = TiesRule(vectors, density=density, combine="sum")
    return lambda _, deltas: ties(deltas)


def index_of(task: str, vectors: TaskVectors) -> int:
    """Place of a task among the vectors.

    Raises:
        UnknownNameError: there is no such parent.
    """
    if task not in vectors.tasks:
        raise UnknownNameError("parent", task, vectors.tasks)
    return vectors.tasks.index(task)


def one_hot(index: int, vectors: TaskVectors) -> Tensor:
    """(T,) with 1 for one task."""
    return torch.nn.functional.one_hot(torch.tensor(index), len(vectors.tasks)).double()
