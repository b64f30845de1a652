"""The edge metric of training: equality with the benchmark package, padding, holes."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtvision.metrics import Edge, add, build_metric, total
from mtvision.metrics.boundary import count_image, get_boundary_protocol, seg2bmap, summarize
from mtvision.metrics.boundary.thin import thin
from mtvision.protocols.tasks import edge


def maps(seed, size=(40, 52)):
    generator = np.random.default_rng(seed)
    labels = np.kron(
        generator.integers(0, 3, (size[0] // 8 + 1, size[1] // 8 + 1)), np.ones((8, 8), dtype=int)
    )
    label = thin(seg2bmap(labels[: size[0], : size[1]])).astype(np.float32)
    prediction = np.clip(0.6 * np.roll(label, 1, axis=1) + 0.4 * generator.random(size), 0, 1).astype(
        np.float32
    )
    return torch.from_numpy(prediction)[None], torch.from_numpy(label)[None]


def test_equals_the_seism_protocol_on_the_same_ground_truth():
    metric = Edge(max_distance=0.011, thresholds=101)
    protocol = get_boundary_protocol("seism-nyud")
    pairs = [maps(seed) for seed in range(3)]
    scores = metric.score(total(metric.measure(*pair) for pair in pairs))
    counts = [count_image(p[0].numpy(), [thin(t[0].numpy() > 0.5)], protocol) for p, t in pairs]
    assert scores == summarize(counts, protocol).scores()
    assert 0 < scores["odsF"] < 1


def test_perfect_prediction():
    metric = Edge(suppression=0, thresholds=3)
    _, label = maps(0)
    scores = metric.score(metric.measure(label, label))
    assert scores["odsF"] == scores["oisF"] == 1


def test_padding_changes_nothing():
    metric = Edge(thresholds=5)
    prediction, label = maps(1)
    padded_label = torch.nn.functional.pad(label, (3, 9, 5, 2), value=torch.nan)
    padded = torch.nn.functional.pad(prediction, (3, 9, 5, 2), value=0.9)
    plain, other = metric.measure(prediction, label), metric.measure(padded, padded_label)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_unlabelled_pixels_inside_cost_nothing():
    metric = Edge(thresholds=3, suppression=0)
    prediction, label = torch.zeros(1, 20, 20), torch.zeros(1, 20, 20)
    label[0, 4], prediction[0, 4] = 1, 1
    prediction[0, 12] = 1
    hole = label.clone()
    hole[0, 10:15] = torch.nan
    assert metric.score(metric.measure(prediction, label))["odsF"] == pytest.approx(2 * 0.5 / 1.5)
    assert metric.score(metric.measure(prediction, hole))["odsF"] == 1


def test_all_ignored_and_arguments_survive():
    metric = Edge(thresholds=5)
    prediction, label = maps(2)
    before = prediction.clone(), label.clone()
    some = metric.measure(prediction, label)
    torch.testing.assert_close((prediction, label), before)
    nothing = metric.measure(prediction, torch.full_like(label, torch.nan))
    assert all(math.isnan(value) for value in metric.score(nothing).values())
    assert metric.score(add(some, nothing)) == metric.score(some)


def test_options_come_from_the_task_and_can_be_reduced():
    metric = build_metric(edge(max_distance=0.011, thresholds=101))
    assert (metric.max_distance, len(metric.protocol.thresholds)) == (0.011, 101)
    few = build_metric(edge(), thresholds=9)
    assert len(few.protocol.thresholds) == 9
    assert pickle.loads(pickle.dumps(few)) == few
    with pytest.raises(ValueError, match="number of thresholds"):
        Edge(thresholds=0)
    with pytest.raises(ValueError, match="apply the sigmoid"):
        few.measure(torch.full((1, 8, 8), 4.0), torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="without batch axis"):
        few.measure(torch.zeros(8, 8), torch.zeros(8, 8))
    assert replace(few, strict=False).protocol.strict is False
