"""Base and task vectors in memory, and the merged network as a differentiable function of coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.merge.coefficients import Coefficients, Scale
from mtvision.merge.states import check_fit, kind_of, merged_whole
from mtvision.merge.vectors import Rule, Shares, TaskVectors, combined


class Mixture:
    """The states of a problem, held in the precision of the base.

    Takes one copy of the base and one of every task vector. A merged state is one more, and its gradient
    another.

    Args:
        vectors: of the parents.
        device: on which they are held.

    Raises:
        MergeError: tensors do not fit or are not finite.
    """

    def __init__(self, vectors: TaskVectors, device: torch.device) -> None:
        self.vectors = vectors
        self._weights: dict[str, tuple[Tensor, Tensor]] = {}
        self._statistics: dict[str, tuple[Tensor, Tensor]] = {}
        self._others: dict[str, Any] = {}
        for name in vectors.names:
            base = vectors.base[name]
            kind = kind_of(name, base)
            if kind in ("weight", "statistic"):
                pair = tuple(item.to(device, base.dtype) for item in vectors.pair(name))
                held = self._weights if kind == "weight" else self._statistics
                held[name] = (pair[0], pair[1])
                continue
            values = {task: vectors.parents[task][name] for task in vectors.tasks}
            check_fit(name, base, values)
            merged = merged_whole(name, base, values)
            self._others[name] = merged.to(device) if isinstance(merged, Tensor) else merged

    @property
    def shapes(self) -> dict[str, Tensor]:
        """{name: the base's tensor} of the weights."""
        return {name: base for name, (base, _) in self._weights.items()}

    def state(self, rule: Rule, shares: Shares) -> dict[str, Any]:
        """The merged state, as `merge_tensors` would make it; gradients run through `rule`, not `shares`.

        Args:
            rule: (name, task vectors (T, ...)) to what is added to the base.
            shares: name to coefficients of running statistics, (T,).
        """
        state = {name: base + rule(name, deltas) for name, (base, deltas) in self._weights.items()}
        for name, (base, deltas) in self._statistics.items():
            found = shares(name).detach().clamp(min=0)
            state[name] = base + combined((found / found.sum().clamp(min=1)).to(deltas), deltas)
        return {**state, **self._others}

    def parent(self, task: str) -> dict[str, Any]:
        """The state of one parent."""
        chosen = torch.tensor([float(name == task) for name in self.vectors.tasks], dtype=torch.float64)
        return self.state(lambda _, deltas: combined(chosen.to(deltas), deltas), lambda _: chosen)


class LearnedCoefficients:
    """One coefficient per task, or one per task and tensor, or several per tensor.

    Running statistics have the mean of the coefficients of their module's tensors. A module without weights
    has the mean of all.

    Args:
        vectors: whose tasks and tensors are meant.
        per: `task` or `layer`; a layer is one tensor of weights.
        start: the first value, or {task: value}.
        parts: coefficients per task and layer.
        limited: read values below 0 as 0 and those above 1 as 1. Their gradient is then 0.

    Attributes:
        values: (T, L, parts), float64; L is 1 for `per="task"`.

    >>> state = {"a.w": torch.ones(1), "b.w": torch.ones(1)}
    >>> vectors = TaskVectors(state, {"x": state, "y": state})
    >>> found = LearnedCoefficients(vectors, "layer", {"x": 0.1, "y": 0.2})
    >>> found.of("b.w").tolist()
    [[0.1], [0.2]]
    """

    def __init__(
        self,
        vectors: TaskVectors,
        per: Literal["task", "layer"],
        start: Scale,
        *,
        parts: int = 1,
        limited: bool = False,
    ) -> None:
        self._tasks, self._limited = vectors.tasks, limited
        names = list(vectors.weights)
        self._columns = {name: index if per == "layer" else 0 for index, name in enumerate(names)}
        first = Coefficients(start, None, vectors).of("")
        width = max(self._columns.values(), default=0) + 1
        self.values = first[:, None, None].repeat(1, width, parts).requires_grad_()

    def of(self, name: str) -> Tensor:
        """(T, parts) of a tensor of weights, float64."""
        return self._read(self.values[:, self._columns[name]])

    def scale(self, name: str, deltas: Tensor) -> Tensor:
        """Σ_t λ_t τ_t of a tensor whose layer has one coefficient per task."""
        return combined(self.of(name)[:, 0].to(deltas), deltas)

    def shares(self, name: str) -> Tensor:
        """(T,) of any tensor, without a graph: the mean over what belongs to it."""
        module = name.rpartition(".")[0]
        columns = [column for other, column in self._columns.items() if other.rpartition(".")[0] == module]
        found = self._read(self.values.detach())
        chosen = (found[:, sorted(set(columns))] if columns else found).flatten(1)
        return chosen[:, 0] + (chosen - chosen[:, :1]).mean(dim=1)  # exact where all are equal

    def to_plain(self) -> dict[str, Mapping[str, Any]]:
        """{task: {tensor: coefficient, or a list of them}}; `*` stands for all tensors."""
        one = len(set(self._columns.values())) < 2
        places = {"*": 0} if one else self._columns
        found = self._read(self.values.detach())
        return {
            task: {name: _short(found[index, column]) for name, column in places.items()}
            for index, task in enumerate(self._tasks)
        }

    def _read(self, values: Tensor) -> Tensor:
        return values.clamp(0, 1) if self._limited else values


def _short(values: Tensor) -> Any:
    return float(values[0]) if len(values) == 1 else values.tolist()
