"""Gain conventions against the papers' arithmetic; seeds and bootstrap against formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.metrics import Depth, Normals, bootstrap, spread_over_seeds, total
from mtvision.metrics.gain import HIGHER_IS_BETTER, gain, headline_gain, metric_mean_gain, task_mean_gain
from mtvision.metrics.statistics import spread
from mtvision.protocols.tasks import depth, normals, semseg

SEMSEG, DEPTH, NORMALS = semseg([str(i) for i in range(13)]), depth(), normals()
NYUV2_BASES = {
    "semseg": {"miou": 0.3830, "pixel_accuracy": 0.6376},
    "depth": {"abs_err": 0.6754, "rel_err": 0.2780},
    "normals": {"mean": 25.01, "median": 19.21, "11.25": 0.3014, "22.5": 0.5720, "30": 0.6915},
}


def test_headline_gain_signs():
    scores = {"semseg": {"miou": 0.55}, "depth": {"rmse": 0.66}}
    baselines = {"semseg": {"miou": 0.50}, "depth": {"rmse": 0.60}}
    result = gain([SEMSEG, DEPTH], scores, baselines)
    assert result.parts == pytest.approx({"semseg": 10, "depth": -10})
    assert result.percent == pytest.approx(0)
    assert result.higher_is_better


def test_more_of_a_negative_score_is_better_where_higher_is():
    """A score of one's own may be negative, such as a share of explained variance."""
    found = headline_gain([SEMSEG], {"semseg": {"miou": -0.1}}, {"semseg": {"miou": -0.2}})
    assert found.percent == pytest.approx(50)


def test_published_family_a_arithmetic():
    """A model equal to its baselines gains 0; one twice as good in a `higher` task of two gains 50 %."""
    base = {"semseg": {"miou": 0.4}, "normals": {"mean": 20.0}}
    assert headline_gain([SEMSEG, NORMALS], base, base).percent == 0
    twice = {"semseg": {"miou": 0.8}, "normals": {"mean": 20.0}}
    assert headline_gain([SEMSEG, NORMALS], twice, base).percent == pytest.approx(50)


def test_nash_delta_is_negative_where_better_and_weighs_scores():
    scores = {task: dict(values) for task, values in NYUV2_BASES.items()}
    scores["normals"] = {  # 10 % better in every one of five scores
        name: value * (1.1 if HIGHER_IS_BETTER[name] else 0.9)
        for name, value in NYUV2_BASES["normals"].items()
    }
    result = metric_mean_gain([SEMSEG, DEPTH, NORMALS], scores, NYUV2_BASES)
    assert result.percent == pytest.approx(-10 * 5 / 9)
    assert not result.higher_is_better
    assert len(result.parts) == 9
    assert task_mean_gain([SEMSEG, DEPTH, NORMALS], scores, NYUV2_BASES).percent == pytest.approx(10 / 3)


def test_nash_delta_of_a_published_row():
    """Linear scalarisation on NYUv2 (Navon et al. 2022, table 2): 5.59 from its nine numbers."""
    scores = {
        "semseg": {"miou": 0.3929, "pixel_accuracy": 0.6533},
        "depth": {"abs_err": 0.5493, "rel_err": 0.2263},
        "normals": {"mean": 28.15, "median": 23.96, "11.25": 0.2209, "22.5": 0.4750, "30": 0.6108},
    }
    result = metric_mean_gain([SEMSEG, DEPTH, NORMALS], scores, NYUV2_BASES)
    assert result.percent == pytest.approx(5.59, abs=0.01)


def test_missing_things_are_named():
    scores = {"semseg": {"miou": 0.5}, "depth": {"rmse": 0.6}}
    with pytest.raises(ValueError, match="task 'depth' has no baseline; there are some for semseg"):
        gain([SEMSEG, DEPTH], scores, {"semseg": {"miou": 0.5}})
    with pytest.raises(ValueError, match="task 'semseg' has no 'miou'; it has pixel_accuracy"):
        gain([SEMSEG], {"semseg": {"pixel_accuracy": 1}}, scores)
    with pytest.raises(ValueError, match="is nan"):
        gain([SEMSEG], {"semseg": {"miou": math.nan}}, scores)
    with pytest.raises(ValueError, match="is 0"):
        gain([SEMSEG], scores, {"semseg": {"miou": 0}})
    with pytest.raises(ValueError, match="no tasks"):
        gain([], scores, scores)
    with pytest.raises(UnknownNameError, match="headline"):
        gain([SEMSEG], scores, scores, "headlines")


def test_spread():
    result = spread_over_seeds([{"miou": 0.4}, {"miou": 0.5}, {"miou": 0.6}])["miou"]
    assert (result.mean, result.std, result.count) == pytest.approx((0.5, 0.1, 3))
    assert math.isnan(spread([1.0]).std)
    with pytest.raises(ValueError, match="differ in"):
        spread_over_seeds([{"miou": 0.4}, {"rmse": 0.4}])
    with pytest.raises(ValueError, match="run 2 and run 0"):
        spread_over_seeds([{"miou": 0.4}, {"miou": 0.5}, {"rmse": 0.4}])
    with pytest.raises(ValueError, match="run 1 and run 0"):
        spread_over_seeds([{"miou": 0.4}, {"rmse": 0.5}, {"miou": 0.6}])


def depth_sums(number, pixels=4):
    generator = torch.Generator().manual_seed(0)
    metric = Depth()
    label = torch.rand(number, 1, 1, pixels, generator=generator) + 1
    error = torch.randn(number, 1, 1, 1, generator=generator).abs() * 0.1
    return metric, [metric.measure(d + e, d) for d, e in zip(label, error, strict=True)]


def test_bootstrap_equals_resampling_by_hand():
    metric, sums = depth_sums(9)
    result = bootstrap(metric, sums, resamples=70, confidence=0.8, seed=3)["rmse"]
    draws = np.random.default_rng(3)
    values = []
    for size in (64, 6):
        for times in draws.multinomial(9, np.full(9, 1 / 9), size=size):
            chosen = [part for part, repeat in zip(sums, times, strict=True) for _ in range(repeat)]
            values.append(metric.score(total(chosen))["rmse"])
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(values, [0.1, 0.9])), rel=1e-12)
    assert result.score == metric.score(total(sums))["rmse"]


def test_bootstrap_interval_has_the_width_of_the_standard_error():
    metric, sums = depth_sums(400)
    errors = np.array([metric.score(part)["abs_err"] for part in sums])
    interval = bootstrap(metric, sums, resamples=1000)["abs_err"]
    width = 2 * 1.96 * errors.std(ddof=1) / math.sqrt(len(errors))
    assert interval.high - interval.low == pytest.approx(width, rel=0.1)
    assert interval.low < interval.score < interval.high


def test_bootstrap_repeats_and_handles_histograms():
    metric = Normals()
    generator = torch.Generator().manual_seed(1)
    sums = [metric.measure(*torch.randn(2, 3, 5, 5, generator=generator)) for _ in range(12)]
    assert bootstrap(metric, sums, resamples=20, seed=5) == bootstrap(metric, sums, resamples=20, seed=5)
    median = bootstrap(metric, sums, resamples=50)["median"]
    assert median.low <= median.score <= median.high
    with pytest.raises(ValueError, match="confidence"):
        bootstrap(metric, sums, confidence=95)
