"""Scores: sums per sample, numbers from sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.core.registry import METRICS
    from mtvision.metrics.building import build_metric
    from mtvision.metrics.constant import ConstantPredictor
    from mtvision.metrics.depth import Depth
    from mtvision.metrics.edge import Edge
    from mtvision.metrics.gain import Gain
    from mtvision.metrics.instances import InstanceAP
    from mtvision.metrics.iou import IoU
    from mtvision.metrics.normals import Normals
    from mtvision.metrics.saliency import Saliency
    from mtvision.metrics.statistics import bootstrap, spread_over_seeds
    from mtvision.metrics.sums import Metric, Sums, add, score_by_groups, score_images, total
    from mtvision.metrics.values import Values
else:
    __getattr__ = lazy_exports(__name__)

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
    "Values",
    "add",
    "bootstrap",
    "build_metric",
    "score_by_groups",
    "score_images",
    "spread_over_seeds",
    "total",
]
