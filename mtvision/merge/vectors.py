"""Task vectors τ_t = θ_t - θ_0, tensor by tensor, and the loop that all methods share.

Arithmetic is in float64; results have the type of the base's tensors. Tasks are sorted by name, so that the
order of the parents cannot change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from mtvision.core.non_finite import all_finite
from mtvision.merge.states import (
    MergeError,
    Parents,
    State,
    check_fit,
    check_names,
    kind_of,
    merged_whole,
)

PIECE = 2**19
"""Entries of a tensor that are merged at once."""
Rule = Callable[[str, Tensor], Tensor]
"""(name, (T, ...) task vectors) to what is added to the base, (...)."""
Shares = Callable[[str], Tensor]
"""Name to the coefficient of every parent, (T,)."""


class TaskVectors:
    """The differences of parents from their base. Nothing is read before it is asked for.

    Args:
        base: θ_0.
        parents: {task: θ_t} with the names and shapes of the base.

    Attributes:
        tasks: names of the parents, sorted.

    Raises:
        MergeError: the names of the tensors differ.

    >>> vectors = TaskVectors({"w": torch.ones(2)}, {"b": {"w": torch.ones(2)}, "a": {"w": torch.zeros(2)}})
    >>> vectors.tasks, vectors.of("w").tolist()
    (('a', 'b'), [[-1.0, -1.0], [0.0, 0.0]])
    """

    def __init__(self, base: State, parents: Parents) -> None:
        check_names(base, parents)
        self.base, self.parents = base, parents
        self.tasks = tuple(sorted(parents))

    @property
    def names(self) -> list[str]:
        """Names of all tensors, in the order of the base."""
        return list(self.base)

    @property
    def weights(self) -> Iterator[str]:
        """Names of the weights: real numbers that are no statistics."""
        return (name for name in self.base if kind_of(name, self.base[name]) == "weight")

    def of(self, name: str) -> Tensor:
        """(T, ...) float64 task vectors of a tensor.

        Raises:
            MergeError: shapes or kinds differ, or a value is NaN or infinite.
        """
        return self.pair(name)[1]

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        """The base's tensor (...) and its task vectors (T, ...), float64.

        Raises:
            MergeError: as `of`.
        """
        base, values = self._values(name)
        start = self._checked(name, "the base", base)
        deltas = start.new_empty((len(self.tasks), *start.shape))
        for found, task in zip(deltas, self.tasks, strict=True):
            found.copy_(self._checked(name, f"parent '{task}'", values[task])).sub_(start)
        return start, deltas

    def pieces(self, name: str) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(place, base's entries (N), task vectors (T, N)) of the flat tensor, in pieces of limited size.

        Raises:
            MergeError: as `of`.
        """
        base, values = self._values(name)
        flat = {task: value.reshape(-1) for task, value in values.items()}
        for begin in range(0, base.numel(), PIECE):
            place = slice(begin, begin + PIECE)
            part = TaskVectors(
                {name: base.reshape(-1)[place]}, {t: {name: x[place]} for t, x in flat.items()}
            )
            yield place, *part.pair(name)

    def magnitudes(self, task: str, names: Iterable[str]) -> Iterator[Tensor]:
        """|τ| of one parent in pieces, float64; values may be NaN or infinite.

        Raises:
            MergeError: shapes or kinds differ.
        """
        for name in names:
            check_fit(name, self.base[name], {task: self.parents[task][name]})
            base, own = self.base[name].reshape(-1), self.parents[task][name].reshape(-1)
            for begin in range(0, base.numel(), PIECE):
                place = slice(begin, begin + PIECE)
                yield own[place].to(torch.float64, copy=True).sub_(base[place]).abs_()

    def _values(self, name: str) -> tuple[Tensor, dict[str, Tensor]]:
        base = self.base[name]
        values = {task: self.parents[task][name] for task in self.tasks}
        check_fit(name, base, values)
        return base, values

    def _checked(self, name: str, owner: str, value: Tensor) -> Tensor:
        found = value.to(torch.float64, copy=True)  # what is given is never changed
        if not all_finite(found):
            raise MergeError(f"{name}: {owner} has values that are NaN or infinite; use a sound checkpoint.")
        return found


def merge_tensors(vectors: TaskVectors, rule: Rule, shares: Shares, *, whole: bool = False) -> dict[str, Any]:
    """The merged state: every weight is the base's plus what the rule says.

    Args:
        vectors: of the parents.
        rule: (name, task vectors) to the merged one, scaled.
        shares: coefficients c_t of the parents for running statistics. These become the convex combination
            (1 - Σ c_t) base + Σ c_t parent. Negative ones count as 0; a sum above 1 is scaled down to 1.

        whole: the rule needs whole tensors. Otherwise it gets flat pieces, (T, N) to (N).

    Raises:
        MergeError: tensors of one name do not fit.
    """
    merged = _room(vectors)
    for name in vectors.names:
        base = vectors.base[name]
        kind = kind_of(name, base)
        if kind == "weight" and not whole:
            filled = torch.empty(base.shape, dtype=base.dtype) if not base.is_contiguous() else merged[name]
            for place, start, deltas in vectors.pieces(name):
                filled.view(-1)[place] = start.add_(rule(name, deltas))
            if filled is not merged[name]:
                merged[name].copy_(filled)
        elif kind == "weight":
            start, deltas = vectors.pair(name)
            merged[name].copy_(start.add_(rule(name, deltas)))
        elif kind == "statistic":
            start, deltas = vectors.pair(name)
            weights = shares(name).clamp(min=0)
            weights = weights / weights.sum().clamp(min=1)
            merged[name].copy_(start + combined(weights, deltas))
        else:
            values = {task: vectors.parents[task][name] for task in vectors.tasks}
            check_fit(name, base, values)
            merged[name] = merged_whole(name, base, values)
    return merged


def _room(vectors: TaskVectors) -> dict[str, Any]:
    """{name: tensor to be filled}, made at once, so that temporary tensors do not scatter the memory."""
    return {
        name: torch.empty_like(item) if isinstance(item, Tensor) else None
        for name, item in ((name, vectors.base[name]) for name in vectors.names)
    }


def combined(weights: Tensor, deltas: Tensor) -> Tensor:
    """Σ_t weights_t · deltas_t: (T,) and (T, ...) to (...)."""
    total: Tensor = torch.tensordot(weights, deltas, dims=1)
    return total


def by_task(values: Tensor, deltas: Tensor) -> Tensor:
    """(T,) as (T, 1, ..., 1), to broadcast over task vectors."""
    return values.reshape(-1, *[1] * (deltas.ndim - 1))
