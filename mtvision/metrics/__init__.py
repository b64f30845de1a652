"""Scores: sums per sample, numbers from sums."""

from typing import Any

from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.metrics.constant import ConstantPredictor
from mtvision.metrics.depth import Depth
from mtvision.metrics.edge import Edge
from mtvision.metrics.gain import Gain, gain
from mtvision.metrics.instances import InstanceAP
from mtvision.metrics.iou import IoU
from mtvision.metrics.normals import Normals
from mtvision.metrics.saliency import Saliency
from mtvision.metrics.statistics import bootstrap, spread_over_seeds
from mtvision.metrics.sums import Metric, Sums, add, score_by_groups, total

METRICS: dict[str, type[Any]] = {
    "iou": IoU,
    "depth": Depth,
    "normals": Normals,
    "edge": Edge,
    "saliency": Saliency,
    "instances": InstanceAP,
}
"""What `Task.metric` may name. An own metric is one more entry: a class with `measure` and `score`."""


def build_metric(task: Task, **overrides: Any) -> Metric:
    """The task's metric with the task's options.

    Args:
        task: names the metric and its options.
        overrides: replace single options, e.g. `thresholds=9` for a quick look at odsF during training.

    Raises:
        UnknownNameError: no metric has that name.
        TypeError: the metric has no such option.
    """
    metric: Metric = look_up("metric", task.metric, METRICS)(**{**task.metric_options, **overrides})
    return metric


__all__ = [
    "METRICS",
    "ConstantPredictor",
    "Depth",
    "Edge",
    "Gain",
    "InstanceAP",
    "IoU",
    "Metric",
    "Normals",
    "Saliency",
    "Sums",
    "add",
    "bootstrap",
    "build_metric",
    "gain",
    "score_by_groups",
    "spread_over_seeds",
    "total",
]
