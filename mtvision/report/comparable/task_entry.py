"""An entry of a record's `tasks`: what was measured, by which metrics, with which options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from mtvision.core.task import Task
from mtvision.metrics.several.options import directions, metric_configs

PROTOCOL_EVALUATOR = "protocol"
"""Evaluator of a task that was scored exactly as its protocol says."""


def describe_tasks(
    tasks: Sequence[Task], overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """The `tasks` field of a record.

    Args:
        tasks: the protocol's tasks, those that were trained.
        overrides: {task: metric options that replaced the protocol's}. They become part of the evaluator's
            name, and tables do not mix such a score with one of the protocol's own evaluator.
    """
    return [_described(task, (overrides or {}).get(task.name, {})) for task in tasks]


def _described(task: Task, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """One entry; `further_metrics` and `directions` only where there are any."""
    before, after = metric_configs(task), metric_configs(task, overrides)
    changes = [
        f"{'' if index == 0 else str(new['type']) + '.'}{key}={value}"
        for index, (old, new) in enumerate(zip(before, after, strict=True))
        for key, value in sorted(new.items())
        if old.get(key, ...) != value
    ]
    first, *further = [
        {"metric": item["type"], "metric_options": plain({key: item[key] for key in item if key != "type"})}
        for item in after
    ]
    known = {score: higher for score, higher in directions(task).items() if score != task.headline}
    entry = {
        "name": task.name,
        "headline": task.headline,
        "higher_is_better": task.higher_is_better,
        "unit": task.unit,
        **first,
        "evaluator": f"{PROTOCOL_EVALUATOR} with {', '.join(changes)}" if changes else PROTOCOL_EVALUATOR,
    }
    entry |= {"further_metrics": further} if further else {}
    return entry | ({"directions": known} if known else {})


def metrics_of(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{metric: its options} of an entry, in order."""
    every = (entry, *entry.get("further_metrics", ()))
    return {item["metric"]: item.get("metric_options", {}) for item in every}


def plain(value: Any) -> Any:
    """Copy as JSON's types: tuples become lists, keys text, NumPy numbers Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
