"""Sums of different metrics are not added up. The metric battery shows that shards give equal scores."""

from __future__ import annotations

import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.prediction import to_prediction
from mtvision.metrics import METRICS, add, build_metric, score_by_groups, total
from mtvision.protocols.tasks import depth, edge


def sums_of(task, number):
    """Sums of random images."""
    generator = torch.Generator().manual_seed(1)
    metric, result = build_metric(task), []
    for _ in range(number):
        logits = torch.randn(1, task.out_channels, 8, 20, generator=generator)
        label = torch.rand(task.label_channels, 8, 20, generator=generator)
        result.append(metric.measure(to_prediction(task, logits)[0], label))
    return metric, result


def test_foreign_sums_are_refused():
    _, few = sums_of(edge(thresholds=3), 1)
    _, many = sums_of(edge(thresholds=5), 1)
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(5,\)"):
        add(few[0], many[0])
    with pytest.raises(ValueError, match="names"):
        add(few[0], sums_of(depth(), 1)[1][0])
    with pytest.raises(ValueError, match="no image was measured"):
        total([])
    with pytest.raises(ValueError, match="group_size"):
        score_by_groups(build_metric(depth()), few, 0)


def test_unknown_names():
    from dataclasses import replace

    with pytest.raises(UnknownNameError, match="Did you mean 'depth'"):
        build_metric(replace(depth(), metrics=({"type": "deph"},)))
    assert set(METRICS) == {
        "iou",
        "annotated_edge",
        "depth",
        "normals",
        "edge",
        "saliency",
        "instances",
        "values",
    }
