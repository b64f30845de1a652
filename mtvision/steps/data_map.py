"""Mean and spread of a number per image and task, over all uses of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Moments = tuple[int, float, float]
"""Number of values, their mean, and the sum of squared deviations from it."""


class DataMap:
    """Running moments by Welford's rule, which needs no history and does not cancel.

    >>> recorded = DataMap()
    >>> for value in (0.2, 0.4, 0.9):
    ...     recorded.add("depth", "room-7", value)
    >>> [round(item, 4) for item in recorded.mean_and_std("depth", ["room-7"])[:, 0].tolist()]
    [0.5, 0.3606]
    """

    def __init__(self) -> None:
        self.moments: dict[str, dict[str, Moments]] = {}

    def add(self, task: str, image: str, value: float) -> None:
        """Note one more value of an image; NaN (no label) is not a value."""
        if math.isnan(value):
            return
        table = self.moments.setdefault(task, {})
        count, mean, squares = table.get(image, (0, 0.0, 0.0))
        count += 1
        change = value - mean
        mean += change / count
        table[image] = (count, mean, squares + change * (value - mean))

    def images(self, tasks: Sequence[str], least: int = 1) -> list[str]:
        """Ids, sorted, that have at least `least` values for every one of `tasks`."""
        tables = [self.moments.get(task, {}) for task in tasks]
        first = tables[0] if tables else {}
        return sorted(name for name in first if all(table.get(name, (0,))[0] >= least for table in tables))

    def mean_and_std(self, task: str, images: Sequence[str]) -> Tensor:
        """float64 (2, images): mean and sample standard deviation (divisor n − 1; 0 for a single value).

        Raises:
            KeyError: an image has no value.
        """
        found = [self.moments[task][name] for name in images]
        means = [mean for _, mean, _ in found]
        spreads = [math.sqrt(squares / max(count - 1, 1)) for count, _, squares in found]
        return torch.tensor([means, spreads], dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """Plain data and tensors, for a checkpoint."""
        return {
            task: {
                "images": list(table),
                "moments": torch.tensor(list(table.values()), dtype=torch.float64).reshape(-1, 3),
            }
            for task, table in self.moments.items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DataMap:
        """Undo `state`, exactly."""
        restored = cls()
        for task, table in state.items():
            rows = table["moments"].tolist()
            restored.moments[task] = {
                name: (int(count), mean, squares)
                for name, (count, mean, squares) in zip(table["images"], rows, strict=True)
            }
        return restored
