"""What a map holds, in a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.instances import BASE
from mtvision.core.task import Task

DIGITS = 6


def statistics(task: Task, values: NDArray[Any]) -> dict[str, Any]:
    """Plain data about a prediction.

    Returns:
        Class ids: `{"shares": {class: share of the pixels}}`. Instances: `{"count": n, "classes": {class:
        n}}`. Values: `{"min", "mean", "max", "unit"}`; of several channels each number is a list.
    """
    if task.label == "instances":
        ids = np.unique(values[0]).astype(np.int64)
        counts = Counter(class_name(task, item // BASE - 1) for item in ids.tolist() if item >= BASE)
        return {"count": counts.total(), "classes": dict(sorted(counts.items()))}
    if values.dtype.kind in "iu":
        ids, areas = np.unique(values, return_counts=True)
        order = np.argsort(-areas, kind="stable")
        return {
            "shares": {
                class_name(task, int(ids[index])): round(float(areas[index] / values.size), DIGITS)
                for index in order
            }
        }
    channels = values.reshape(values.shape[0] if values.ndim == 3 else 1, -1)
    mean = channels.mean(axis=1, dtype=np.float64)  # without a copy of a map that may be large
    numbers = {"min": channels.min(axis=1), "mean": mean, "max": channels.max(axis=1)}
    plain = {
        name: [round(float(item), DIGITS) if np.isfinite(item) else None for item in row]
        for name, row in numbers.items()
    }
    result: dict[str, Any] = {name: row[0] if len(row) == 1 else row for name, row in plain.items()}
    return {**result, "unit": task.unit}


def class_name(task: Task, index: int) -> str:
    """The name of a class, or its number."""
    return task.class_names[index] if 0 <= index < len(task.class_names) else str(index)


def mean_statistics(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One summary of several frames: means, but least `min` and highest `max`; an absent class counts 0."""
    result: dict[str, Any] = {}
    for key in dict.fromkeys(key for item in items for key in item):
        values = [item.get(key, 0) for item in items]
        if all(isinstance(value, Mapping) or value == 0 for value in values) and any(
            isinstance(value, Mapping) for value in values
        ):
            result[key] = mean_statistics([value or {} for value in values])
        elif isinstance(values[0], list):
            columns = [_together(key, list(column)) for column in zip(*values, strict=True)]
            result[key] = columns
        else:
            result[key] = _together(key, values)
    return result


def _together(key: str, values: Sequence[Any]) -> Any:
    numbers = [value for value in values if isinstance(value, int | float)]
    if not numbers:
        return values[0]
    if key in ("min", "max"):
        return min(numbers) if key == "min" else max(numbers)
    return round(sum(numbers) / len(numbers), DIGITS)
