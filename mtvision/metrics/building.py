"""From a task to its metric."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mtvision.core.registry import METRICS
from mtvision.core.task import Task
from mtvision.metrics.sums import Metric


def build_metric(task: Task, **overrides: Any) -> Metric:
    """The task's metric with the task's options.

    Args:
        task: names the metric and its options.
        overrides: replace single options, e.g. `thresholds=9` for a quick look at odsF during training.

    Raises:
        UnknownNameError: no metric has that name, or it has no such option.
        TypeError: the metric does not derive from `Metric`.
    """
    metric = METRICS.build({"type": task.metric, **task.metric_options, **overrides})
    if not isinstance(metric, Metric):
        raise TypeError(
            f"metric '{task.metric}' of task '{task.name}': {type(metric).__name__} lacks `measure`, `score` "
            "or `expensive`; derive it from mtvision.metrics.Metric."
        )
    return metric


def scored_task(task: Task, metric: Metric) -> Task:
    """The task with its logits turned into what `metric` reads, see `Metric.activation`."""
    return task if metric.activation is None else replace(task, activation=metric.activation)
