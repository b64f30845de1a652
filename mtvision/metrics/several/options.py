"""The metrics of a task as plain data: changed options, and which scores they give. Nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from mtvision.core.naming import UnknownNameError, within
from mtvision.core.registry import ACTIVATIONS, COLOURS, LOSSES, METRICS
from mtvision.core.task import Task


def metric_configs(task: Task, changes: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Configs of a task's metrics with some options replaced.

    Args:
        task: with the metrics.
        changes: {metric: options} or {option: value}. A lone option belongs to the first metric that has such
            an option; to the first of all if none has.

    Returns:
        New dicts `{"type": name, **options}`, in the task's order. Names and values are not checked.
    """
    configs = [dict(item) for item in task.metrics]
    by_name = {str(item["type"]): item for item in configs}
    for name, value in (changes or {}).items():
        if name in by_name and isinstance(value, Mapping):
            by_name[name].update(value)
        else:
            owner = next((item for item in configs if _has(item["type"], name)), configs[0])
            owner[name] = value
    return configs


def _has(metric: str, option: str) -> bool:
    return metric in METRICS and option in METRICS.parameters(metric)


def check_task(task: Task) -> None:
    """Refuse names and options that no table has, and scores as far as metrics declare them.

    Raises:
        UnknownNameError: loss, metric, an option of one, activation or colours.
        TypeError, ValueError: a value of the wrong type; as `check_scores`.
    """
    for what, table, config in (
        ("loss", LOSSES, task.loss),
        *(("metrics", METRICS, item) for item in task.metrics),
    ):
        with within(what):
            table.check_config(config)
    for what, name, table in (
        ("activation", task.activation, ACTIVATIONS),
        ("colours", task.colours, COLOURS),
    ):
        if name not in table:
            raise UnknownNameError(what, name, table)
    declared = declared_scores(task)
    if declared is not None:
        check_scores(task, declared)


def check_scores(task: Task, scores: Mapping[str, Sequence[str]]) -> None:
    """Refuse two metrics that give a score of one name, and a headline that is no score.

    Args:
        task: with the headline.
        scores: {metric: names of its scores}, with `*` for any ending, e.g. `iou_*`.

    Raises:
        ValueError: names the score and what to do.
    """
    whose: dict[str, str] = {}
    for metric, names in scores.items():
        for name in names:
            other = next(
                (known for known in whose if fnmatchcase(name, known) or fnmatchcase(known, name)), None
            )
            if other is not None and whose[other] != metric:
                raise ValueError(
                    f"metrics '{whose[other]}' and '{metric}' of task '{task.name}' both have a score "
                    f"'{name}'. Rename it in one of them, or leave one metric out."
                )
            whose[name] = metric
    if not any(fnmatchcase(task.headline, name) for name in whose):
        raise ValueError(
            f"headline '{task.headline}' of task '{task.name}' is no score of its metrics; they give "
            f"{', '.join(whose)}. Give headline= and higher_is_better=."
        )


def directions(task: Task) -> dict[str, bool]:
    """{score: whether higher is better}, as far as the task and its metrics say."""
    declared: dict[str, bool] = {}
    for name in task.metric_names:
        declared |= METRICS.constant(name, "higher_is_better") or {} if name in METRICS else {}
    return declared | {task.headline: task.higher_is_better}


def declared_scores(task: Task) -> dict[str, list[str]] | None:
    """{metric: names of its scores}, as their `ranges` say; None if a metric declares none."""
    declared = {name: list(METRICS.constant(name, "ranges") or ()) for name in task.metric_names}
    return declared if all(declared.values()) else None
