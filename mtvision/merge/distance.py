"""How far parents are from their base, and from one another: whether they share it at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtvision.merge.states import MergeError, Parents, State
from mtvision.merge.vectors import TaskVectors

FAR = 1.0
"""Relative length from which a parent is refused: independent weights of one size have √2."""
WIDE = 0.5
"""Relative length from which a warning says so."""


@dataclass(frozen=True)
class Distances:
    """Lengths of task vectors and angles between them, over all weights.

    Args:
        relative: {task: ‖τ_t‖ / ‖θ_0‖}.
        cosines: {(task, task): cosine of their task vectors}, each pair once.
    """

    relative: dict[str, float]
    cosines: dict[tuple[str, str], float]

    def to_plain(self) -> dict[str, Any]:
        """For metadata."""
        return {
            "relative": dict(self.relative),
            "cosines": {f"{one}, {other}": value for (one, other), value in self.cosines.items()},
        }

    def require_near(self, limit: float = FAR) -> None:
        """Refuse parents that are no fine-tuned copies of the base.

        Args:
            limit: of ‖τ_t‖ / ‖θ_0‖.

        Raises:
            MergeError: names the parents and their lengths.
        """
        far = {task: value for task, value in self.relative.items() if not value < limit}
        if far:
            listing = ", ".join(f"{task} {value:.2f}" for task, value in far.items())
            raise MergeError(
                "parents do not share this base: the length of θ_t - θ_0, relative to that of θ_0, is "
                f"{listing} (below {limit:g} expected; independent weights have about 1.41). Name the "
                "weights that the parents were fine-tuned from."
            )


def distances(base: State, parents: Parents) -> Distances:
    """Measure parents in one pass over the files.

    Args:
        base: θ_0.
        parents: {task: θ_t}.

    Raises:
        MergeError: names, shapes or kinds differ, or a value is NaN or infinite.

    >>> far = distances({"w": torch.ones(4)}, {"a": {"w": torch.full((4,), 1.5)}, "b": {"w": torch.ones(4)}})
    >>> far.relative
    {'a': 0.5, 'b': 0.0}
    """
    vectors = TaskVectors(base, parents)
    count = len(vectors.tasks)
    products = torch.zeros(count, count, dtype=torch.float64)
    length = 0.0
    for name in vectors.weights:
        for _, start, deltas in vectors.pieces(name):
            products += deltas @ deltas.T
            length += float(start.square().sum())
    lengths = products.diagonal().sqrt()
    relative = {task: _ratio(lengths[i], length) for i, task in enumerate(vectors.tasks)}
    cosines = {
        (one, vectors.tasks[j]): float(products[i, j] / (lengths[i] * lengths[j]).clamp(min=1e-300))
        for i, one in enumerate(vectors.tasks)
        for j in range(i + 1, count)
    }
    return Distances(relative, cosines)


def _ratio(length: Tensor, square: float) -> float:
    if square:
        return float(length) / math.sqrt(square)
    return math.inf if float(length) else 0.0
