"""Coefficients of task vectors: one number, one per task, one per pattern of tensor names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from mtvision.core.naming import UnknownNameError
from mtvision.merge.states import MergeError, near_names
from mtvision.merge.vectors import TaskVectors

Scale = float | Mapping[str, float]
"""One coefficient, or {task: coefficient}."""


class Coefficients:
    """The coefficients of every tensor. The first pattern that matches a name wins over `scale`.

    Args:
        scale: of tensors that no pattern matches.
        patterns: {glob pattern of tensor names: scale}.
        vectors: whose tensors and tasks are meant.

    Raises:
        MergeError: a pattern matches no tensor, or a task has no coefficient.
        UnknownNameError: a coefficient of no task.

    >>> state = {"stages.0.w": torch.ones(1), "head.w": torch.ones(1)}
    >>> vectors = TaskVectors(state, {"a": state, "b": state})
    >>> found = Coefficients(0.3, {"stages.*": {"a": 1, "b": 0}}, vectors)
    >>> found.of("stages.0.w").tolist(), found.of("head.w").tolist()
    ([1.0, 0.0], [0.3, 0.3])
    """

    def __init__(self, scale: Scale, patterns: Mapping[str, Scale] | None, vectors: TaskVectors) -> None:
        self._tasks = vectors.tasks
        self._default = self._by_task("scale", scale)
        given = dict(patterns or {})
        check_patterns("coefficients", given, vectors.names)
        self._patterns = {
            pattern: self._by_task(f"coefficients['{pattern}']", value) for pattern, value in given.items()
        }

    def of(self, name: str) -> Tensor:
        """(T,) float64, in the order of the vectors' tasks."""
        for pattern, value in self._patterns.items():
            if fnmatchcase(name, pattern):
                return value
        return self._default

    def one(self, name: str) -> float:
        """The one coefficient of a tensor, for methods whose merged vector belongs to no task.

        Raises:
            MergeError: tasks have different coefficients.
        """
        found = self.of(name)
        if bool((found != found[0]).any()):
            raise MergeError(
                f"{name}: this method has one merged vector, so tasks cannot have different coefficients; "
                "give one number."
            )
        return float(found[0])

    def _by_task(self, place: str, value: Scale) -> Tensor:
        if not isinstance(value, Mapping):
            return torch.full((len(self._tasks),), float(value), dtype=torch.float64)
        for task in value:
            if task not in self._tasks:
                raise UnknownNameError(f"task in {place}", task, self._tasks)
        lacking = [task for task in self._tasks if task not in value]
        if lacking:
            raise MergeError(f"{place} has no coefficient of {', '.join(lacking)}; give one for every task.")
        return torch.tensor([float(value[task]) for task in self._tasks], dtype=torch.float64)


def check_patterns(place: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a glob pattern that matches no name.

    Args:
        place: what holds the patterns, for the message.
        patterns: globs.
        names: of tensors.

    Raises:
        MergeError: names the pattern and near ones.

    >>> check_patterns("coefficients", ["stage.0.*"], ["stages.0.w"])
    Traceback (most recent call last):
    mtvision.merge.states.MergeError: coefficients: 'stage.0.*' matches no tensor. Did you mean 'stages.0.*'?
    """
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            heads = {name[: at + 1] + "*" for name in known for at, sign in enumerate(name) if sign == "."}
            hint = near_names(pattern, [*sorted(heads), *known])
            first = (
                ""
                if hint
                else f" Names begin with {', '.join(sorted({n.partition('.')[0] for n in known}))}."
            )
            raise MergeError(f"{place}: '{pattern}' matches no tensor.{hint}{first}")
