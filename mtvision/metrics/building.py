"""From a task to its metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mtvision.core.naming import within
from mtvision.core.prediction import to_prediction
from mtvision.core.registry import METRICS
from mtvision.core.task import Task
from mtvision.metrics.several.joined import JoinedMetrics
from mtvision.metrics.several.options import check_scores, declared_scores, metric_configs
from mtvision.metrics.sums import Metric

_SIDE = 64
"""Rows and columns of the map on which metrics that declare no ranges are tried."""


def build_metric(task: Task, **overrides: Any) -> Metric:
    """The task's metric with the task's options; of several metrics, all as one.

    Args:
        task: names the metrics and their options.
        overrides: replace single options, e.g. `thresholds=9` for a quick look at odsF during training. See
            `mtvision.metrics.several.options.metric_configs` for tasks with several metrics.

    Raises:
        UnknownNameError: no metric has that name, or it has no such option.
        TypeError: the metric does not derive from `Metric`.
        ValueError: two metrics read predictions of different kinds.

    >>> from mtvision.protocols import get_protocol
    >>> type(build_metric(get_protocol("nyud-invpt").tasks[1])).__name__
    'Depth'
    """
    parts = {str(config["type"]): _built(task, config) for config in metric_configs(task, overrides)}
    if len(parts) == 1:
        return next(iter(parts.values()))
    reads = {name: part.activation or task.activation for name, part in parts.items()}
    if len(set(reads.values())) > 1:
        raise ValueError(
            f"metrics of task '{task.name}' read predictions of different kinds: "
            f"{', '.join(f'{name} {kind}' for name, kind in reads.items())}. Give the task the "
            "activation that all of them read, or score them in two tasks."
        )
    return JoinedMetrics(parts=parts)


def _built(task: Task, config: Mapping[str, Any]) -> Metric:
    metric = METRICS.build(config)
    if not isinstance(metric, Metric):
        raise TypeError(
            f"metric '{config['type']}' of task '{task.name}': {type(metric).__name__} lacks `measure`, "
            "`score` or `expensive`; derive it from mtvision.metrics.Metric."
        )
    return metric


def scored_task(task: Task, metric: Metric) -> Task:
    """The task with its logits turned into what `metric` reads, see `Metric.activation`."""
    return task if metric.activation is None else replace(task, activation=metric.activation)


def require_scores(task: Task, metric: Metric) -> None:
    """Refuse scores of one name and a headline that is no score, before anything is trained.

    A metric says in `ranges` which scores it has. One that does not is tried on a small map.

    Args:
        task: with the headline.
        metric: from `build_metric`.

    Raises:
        ValueError: names the score.
    """
    declared = declared_scores(task)
    if declared is None:
        label = _label(task)
        with within(f"metrics of task '{task.name}', tried on a map of {_SIDE} x {_SIDE} pixels"):
            prediction = to_prediction(scored_task(task, metric), _logits(task, label))[0]
            names = list(metric.score(metric.measure(prediction, label)))
        declared = {", ".join(task.metric_names): names}
    check_scores(task, declared)


def _label(task: Task) -> Tensor:
    """A map of one label: class 0, no instance, or ones (of directions, the last component alone)."""
    if task.label != "values":
        return torch.zeros(_SIDE, _SIDE, dtype=torch.int64)
    label = torch.ones(task.label_channels, _SIDE, _SIDE)
    if task.geometry == "direction":
        label[:-1] = 0
    return label


def _logits(task: Task, label: Tensor) -> Tensor:
    same = task.label == "values" and task.out_channels == task.label_channels
    return label[None] if same else torch.zeros(1, task.out_channels, *label.shape[-2:])
