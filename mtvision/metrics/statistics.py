"""Uncertainty of scores: spread over seeds, and bootstrap intervals over test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, nan, sqrt

import numpy as np
import torch

from mtvision.metrics.constant import ConstantPredictor
from mtvision.metrics.sums import Metric, Sums, total

__all__ = ["ConstantPredictor", "Interval", "Spread", "bootstrap", "spread", "spread_over_seeds"]

_CHUNK = 64
"""Resamples formed at once, which bounds memory."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divisor n - 1; NaN for one value) of `count` values."""

    mean: float
    std: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.std:.2g} (n={self.count})"


@dataclass(frozen=True)
class Interval:
    """A score and its confidence interval."""

    score: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation over seeds.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there are no values to average; give the scores of at least one seed.")
    mean = fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, nan, 1)
    return Spread(mean, sqrt(fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), len(values))


def spread_over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Mean and standard deviation of every score over runs that differ in their seed.

    Raises:
        ValueError: there are no runs, or one has other scores than the first.
    """
    if not runs:
        raise ValueError("there are no runs to average; give the scores of at least one seed.")
    for number, run in enumerate(runs):
        if run.keys() != runs[0].keys():
            odd = sorted(run.keys() ^ runs[0].keys())
            raise ValueError(f"run {number} and run 0 do not have the same scores; they differ in {odd}.")
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def bootstrap(
    metric: Metric,
    per_image: Sequence[Sums],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap over images: the range of scores on other test images of the same kind.

    Each resample draws as many images as there are, with replacement, adds up their sums and scores them.
    Pooled scores (mIoU, RMSE, odsF) are thus resampled as they are defined. The interval does not cover the
    seed of training.

    Args:
        metric: whose `score` is applied.
        per_image: sums of every image.
        resamples: number of resamples.
        confidence: share of resamples inside the interval.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        {score: interval}; NaN resamples are left out.

    Raises:
        ValueError: there are no images, no resamples, or the confidence is not in 0..1.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"bootstrap needs at least one resample and a confidence in 0..1, got {resamples} and "
            f"{confidence}."
        )
    scores = metric.score(total(per_image))
    stacked = {name: torch.stack([sums[name] for sums in per_image]) for name in per_image[0]}
    generator = np.random.default_rng(seed)
    count = len(per_image)
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        times = torch.from_numpy(generator.multinomial(count, np.full(count, 1 / count), size=size)).double()
        # float64 holds integers up to 2^53 exactly, so that counts survive the product.
        totals = {
            name: (times @ value.reshape(count, -1).double()).reshape(size, *value.shape[1:]).to(value.dtype)
            for name, value in stacked.items()
        }
        for index in range(size):
            for name, score in metric.score({key: value[index] for key, value in totals.items()}).items():
                drawn[name].append(score)
    tail = (1 - confidence) / 2
    intervals = {}
    for name, score in scores.items():
        values = np.array(drawn[name])
        values = values[~np.isnan(values)]
        low, high = np.quantile(values, [tail, 1 - tail]) if values.size else (nan, nan)
        intervals[name] = Interval(score, float(low), float(high))
    return intervals
