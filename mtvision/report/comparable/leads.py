"""Whether a difference of two rows is more than the noise of their seeds: a paired test and an interval."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isnan, sqrt
from statistics import stdev

LEVEL = 0.05
SEEDS = 2
"""Seeds that a row needs to be tested; one number says nothing about noise."""


@dataclass(frozen=True)
class Lead:
    """The best row minus another one, its sign turned so that positive is better.

    Args:
        mean: over common seeds; over all seeds where fewer than two are common.
        interval: of 95 %, paired t; None where fewer than two seeds are common.
        p: of a two-sided paired t test; 1 where there is none.
        count: common seeds.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float
    count: int

    @property
    def holds(self) -> bool:
        """Whether the lead is more than noise."""
        return self.p < LEVEL


def lead(best: Mapping[int, float], other: Mapping[int, float], *, higher_is_better: bool) -> Lead:
    """Compare two rows, each {seed: value}; neither is empty."""
    sign = 1 if higher_is_better else -1
    common = sorted(best.keys() & other.keys())
    if len(common) < SEEDS:
        means = [fsum(row.values()) / len(row) for row in (best, other)]
        return Lead(sign * (means[0] - means[1]), None, 1.0, len(common))
    values = [sign * (best[seed] - other[seed]) for seed in common]
    return Lead(fsum(values) / len(values), paired_interval(values), paired_t(values), len(common))


def paired_t(values: Sequence[float]) -> float:
    """Two-sided p of Student's t test that the mean of the differences is 0; needs two or more."""
    from scipy.stats import ttest_1samp

    with warnings.catch_warnings():
        # Differences of equal size are a result, not a mistake.
        warnings.simplefilter("ignore", RuntimeWarning)
        p = float(ttest_1samp(values, 0.0).pvalue)
    return 1.0 if isnan(p) else p  # NaN: every difference is 0


def paired_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean difference, mean ± t(0.975, n - 1) · std / sqrt(n); needs two or more."""
    from scipy.special import stdtrit

    mean = fsum(values) / len(values)
    half = float(stdtrit(len(values) - 1, 1 - LEVEL / 2)) * stdev(values) / sqrt(len(values))
    return mean - half, mean + half
