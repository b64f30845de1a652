"""Every metric gives the identical number however the images are split over processes."""

from __future__ import annotations

from functools import reduce

import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.prediction import to_prediction
from mtvision.metrics import METRICS, add, build_metric, score_by_groups, total
from mtvision.metrics.gain import HIGHER_IS_BETTER
from mtvision.protocols.tasks import depth, edge, human_parts, instance, normals, saliency, semseg

TASKS = [
    semseg(["a", "b", "c"]),
    semseg(["a", "b", "c"], family="mtan"),
    human_parts(),
    depth(max_depth=4.0),
    depth(family="mtan"),
    normals(),
    edge(thresholds=5),
    saliency(),
    saliency(family="survey"),
    instance(["a", "b"], minimum_area=3),
]


def sums_of(task, number=11):
    """Sums of random images of different sizes; some labels are missing, one image has none."""
    generator = torch.Generator().manual_seed(1)
    metric, result = build_metric(task), []
    for index in range(number):
        size = (8 + index, 20 - index)
        logits = torch.randn(1, task.out_channels, *size, generator=generator)
        missing = torch.rand(size, generator=generator) < (1.0 if index == 4 else 0.1)
        if task.label == "classes":
            label = torch.randint(0, task.num_classes, size, generator=generator)
            label[missing] = 255
        elif task.label == "instances":
            label = torch.tensor([0, 256, 257, 512])[torch.randint(0, 4, size, generator=generator)]
            label[missing] = 255
        else:
            label = torch.rand(task.label_channels, *size, generator=generator) * (
                1 if task.name == "edge" else 5
            )
            label[:, missing] = torch.nan
        result.append(metric.measure(to_prediction(task, logits)[0], label))
    return metric, result


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{task.headline}")
def test_any_number_of_shards_gives_the_same_score(task):
    metric, sums = sums_of(task)
    expected = metric.score(total(sums))
    assert task.headline in expected
    for shards in (1, 2, 3, 7):
        parts = [total(sums[rank::shards]) for rank in range(shards)]
        merged = metric.score(reduce(add, parts))
        assert merged == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{task.headline}")
def test_sums_keep_the_contract(task):
    metric, sums = sums_of(task, number=5)
    names = {(name, value.shape, value.dtype) for name, value in sums[0].items()}
    for part in sums:
        assert {(name, value.shape, value.dtype) for name, value in part.items()} == names
        assert all(value.dtype in (torch.float64, torch.int64) for value in part.values())
    empty = metric.score(sums[4])
    assert all(value != value for value in empty.values())
    assert HIGHER_IS_BETTER[task.headline] == task.higher_is_better
    assert empty.keys() <= HIGHER_IS_BETTER.keys()


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
        build_metric(replace(depth(), metric="deph"))
    assert set(METRICS) == {"iou", "depth", "normals", "edge", "saliency", "instances"}
