"""S-measure, E-measure and mean absolute error of saliency maps, image by image.

S-measure: Fan et al., ICCV 2017, arXiv:1708.00786. E-measure: Fan et al., IJCAI 2018, arXiv:1805.10421. The
numbers equal PySODMetrics 1.4 on maps without ignored pixels. Ignored pixels do not exist in that code. Here
they are left out of every mean and count. A margin of ignored pixels is cut off first, so that padding
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
"""Thresholds of the E-measure curve: a map quantised to 8 bits against 255, 254 ... 0."""
_EPS = float(np.spacing(1.0))

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Structure:
    """Scores of one image.

    Args:
        s_measure: structure measure with equal weight of objects and regions.
        e_adaptive: E-measure at twice the map's mean.
        e_curve: E-measure at 8-bit thresholds from 255 down to 0, (256,).
        mae: mean absolute error.
    """

    s_measure: float
    e_adaptive: float
    e_curve: Floats
    mae: float


def structure(prediction: Floats, truth: Flags, valid: Flags) -> Structure:
    """Measure one image, after stretching the prediction to the range 0..1 as is customary.

    Args:
        prediction: probabilities (H, W).
        truth: salient pixels (H, W).
        valid: labelled pixels (H, W), at least one.
    """
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    prediction, truth, valid = prediction[window], truth[window], valid[window]
    low, high = prediction[valid].min(), prediction[valid].max()
    if high > low:
        prediction = (prediction - low) / (high - low)
    values, flags = prediction[valid], truth[valid]
    adaptive = values >= min(2 * values.mean(), 1)
    levels = np.floor(values * (LEVELS - 1)).astype(np.int64)
    hits, misses = (np.bincount(levels[part], minlength=LEVELS)[::-1].cumsum() for part in (flags, ~flags))
    at_adaptive = _e_measure(
        np.array([(adaptive & flags).sum()]), np.array([(adaptive & ~flags).sum()]), flags
    )
    return Structure(
        s_measure=_s_measure(prediction, truth, valid),
        e_adaptive=float(at_adaptive[0]),
        e_curve=_e_measure(hits, misses, flags),
        mae=float(np.abs(values - flags).mean()),
    )


def _e_measure(hits: NDArray[np.int64], misses: NDArray[np.int64], truth: Flags) -> Floats:
    """E-measure of binary maps given as counts of predicted pixels inside (`hits`) and outside the truth."""
    pixels, inside = truth.size, int(truth.sum())
    found = hits + misses
    if inside == 0:
        aligned = (pixels - found).astype(np.float64)
    elif inside == pixels:
        aligned = found.astype(np.float64)
    else:
        mean_found, mean_truth = found / pixels, inside / pixels
        counts = (hits, misses, inside - hits, pixels - inside - misses)
        offsets = ((1, 1), (1, 0), (0, 1), (0, 0))
        aligned = np.zeros(hits.shape)
        for count, (a, b) in zip(counts, offsets, strict=True):
            x, y = a - mean_found, b - mean_truth
            aligned += (2 * x * y / (x**2 + y**2 + _EPS) + 1) ** 2 / 4 * count
    result: Floats = aligned / max(pixels - 1, 1)
    return result


def _s_measure(prediction: Floats, truth: Flags, valid: Flags) -> float:
    share = truth[valid].mean()
    if share == 0:
        return float(1 - prediction[valid].mean())
    if share == 1:
        return float(prediction[valid].mean())
    objects = share * _similarity_to_one(prediction[valid & truth])
    objects += (1 - share) * _similarity_to_one(1 - prediction[valid & ~truth])
    return float(max(0.0, 0.5 * objects + 0.5 * _regions(prediction, truth, valid)))


def _similarity_to_one(values: Floats) -> float:
    mean = values.mean()
    spread = values.std(ddof=1) if values.size > 1 else 0.0
    return float(2 * mean / (mean**2 + 1 + spread + _EPS))


def _regions(prediction: Floats, truth: Flags, valid: Flags) -> float:
    """Structural similarity of the four quadrants around the object's centroid, weighted by their areas."""
    row, column = (round(mean) + 1 for mean in np.argwhere(truth & valid).mean(axis=0))
    score = 0.0
    for rows in (slice(0, row), slice(row, None)):
        for columns in (slice(0, column), slice(column, None)):
            inside = valid[rows, columns]
            if inside.any():
                x, y = prediction[rows, columns][inside], truth[rows, columns][inside].astype(np.float64)
                score += inside.sum() / valid.sum() * _similarity(x, y)
    return score


def _similarity(x: Floats, y: Floats) -> float:
    mean_x, mean_y, freedom = x.mean(), y.mean(), max(x.size - 1, 1)
    variance = (((x - mean_x) ** 2).sum() + ((y - mean_y) ** 2).sum()) / freedom
    covariance = ((x - mean_x) * (y - mean_y)).sum() / freedom
    above, below = 4 * mean_x * mean_y * covariance, (mean_x**2 + mean_y**2) * variance
    if above != 0:
        return float(above / (below + _EPS))
    return 1.0 if below == 0 else 0.0
