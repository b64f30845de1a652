"""Compute ODS, OIS, AP and R50 from counts per image and threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtvision.metrics.boundary.counts import ImageCounts
from mtvision.metrics.boundary.protocols import BoundaryProtocol

Curve = NDArray[np.float64]
Empty = Literal["zero", "seism"]


@dataclass(frozen=True)
class Point:
    """A point of a precision-recall curve; `threshold` is NaN where images have their own."""

    threshold: float
    recall: float
    precision: float
    f: float


@dataclass(frozen=True)
class Summary:
    """Scores of a data set.

    Args:
        ods: the best single threshold for all images (its `f` is odsF).
        ois: every image at its own best threshold.
        ap: average precision, the area under the curve as the BSDS benchmark sums it.
        r50: recall at a precision of 50 %; NaN if no threshold is that precise.
        thresholds: (T,).
        recall: (T,), of the summed counts.
        precision: (T,), of the summed counts.
        f: (T,).
        images: best point of every image.
    """

    ods: Point
    ois: Point
    ap: float
    r50: float
    thresholds: Curve
    recall: Curve
    precision: Curve
    f: Curve
    images: list[Point]

    def scores(self) -> dict[str, float]:
        """`odsF`, `oisF`, `AP`, `R50` as fractions."""
        return {"odsF": self.ods.f, "oisF": self.ois.f, "AP": self.ap, "R50": self.r50}


def f_measure(recall: Curve, precision: Curve) -> Curve:
    """2PR / (P + R), 0 where both are 0."""
    both = recall + precision
    result: Curve = 2 * recall * precision / np.where(both == 0, 1, both)
    return result


def recall_precision(counts: ImageCounts, empty: Empty) -> tuple[Curve, Curve]:
    """Recall and precision at every threshold; `empty` as in `BoundaryProtocol`."""
    recall = counts.matched_truth / np.maximum(counts.truth, 1)
    precision = counts.matched_prediction / np.maximum(counts.prediction, 1)
    if empty == "seism":
        no_prediction, no_truth = counts.prediction == 0, counts.truth == 0
        recall, precision = np.where(no_prediction, 0, recall), np.where(no_prediction, 1, precision)
        recall, precision = np.where(no_truth, 1, recall), np.where(no_truth, 0, precision)
    return recall, precision


def add_counts(images: Sequence[ImageCounts]) -> ImageCounts:
    """Sum of the counts of several images.

    Raises:
        ValueError: there are none.
    """
    if not images:
        raise ValueError("there are no boundary counts to add: no image was evaluated.")
    names = ("matched_truth", "truth", "matched_prediction", "prediction")
    return ImageCounts(*(np.sum([getattr(image, name) for image in images], axis=0) for name in names))


def at_best_threshold(image: ImageCounts, empty: Empty) -> ImageCounts:
    """The image's counts, (1,), at the first threshold of its highest F."""
    best = int(np.argmax(f_measure(*recall_precision(image, empty))))
    fields = (image.matched_truth, image.truth, image.matched_prediction, image.prediction)
    return ImageCounts(*(field[best : best + 1] for field in fields))


def best_point(thresholds: Curve, recall: Curve, precision: Curve, *, interpolate: bool) -> Point:
    """The first point of highest F; between thresholds too, in 100 linear steps, if `interpolate`."""
    points = [thresholds, recall, precision]
    if interpolate and thresholds.size > 1:
        share = np.linspace(0, 1, 100)
        points = [(v[1:, None] * share + v[:-1, None] * (1 - share)).ravel() for v in points]
    f = f_measure(points[1], points[2])
    best = int(np.argmax(f))
    return Point(*(float(v[best]) for v in (*points, f)))


def average_precision(recall: Curve, precision: Curve) -> float:
    """Precision interpolated at recall 0, .01 ... 1 (0 outside the curve's range), summed, times .01."""
    distinct, first = np.unique(recall, return_index=True)
    if distinct.size < 2:
        return 0.0
    at = np.arange(101) / 100
    return float(np.interp(at, distinct, precision[first], left=0, right=0).sum() * 0.01)


def recall_at_half(recall: Curve, precision: Curve) -> float:
    """Recall interpolated at precision .5, or at the lowest precision if higher; NaN if none reaches .5."""
    order = np.argsort(-recall, kind="stable")
    distinct, first = np.unique(precision[order], return_index=True)
    return float(np.interp(max(0.5, distinct[0]), distinct, recall[order][first], right=nan))


def summarize_sums(
    total: ImageCounts, best: ImageCounts, protocol: BoundaryProtocol, images: list[Point] | None = None
) -> Summary:
    """Scores from counts summed over images.

    Args:
        total: counts per threshold, each (T,).
        best: counts of every image at its own best threshold, summed, each (1,).
        protocol: thresholds, interpolation and the rule for empty counts.
        images: best point of every image, if known.

    Raises:
        ValueError: the counts are of another number of thresholds.
    """
    thresholds = np.asarray(protocol.thresholds)
    if total.truth.shape != thresholds.shape:
        raise ValueError(
            f"counts of {total.truth.size} thresholds do not fit the protocol's {thresholds.size}; "
            "evaluate all images with one number of thresholds."
        )
    recall, precision = recall_precision(total, protocol.empty)
    ois_recall, ois_precision = recall_precision(best, protocol.empty)
    ois_f = f_measure(ois_recall, ois_precision)
    return Summary(
        ods=best_point(thresholds, recall, precision, interpolate=protocol.interpolate),
        ois=Point(nan, float(ois_recall[0]), float(ois_precision[0]), float(ois_f[0])),
        ap=average_precision(recall, precision),
        r50=recall_at_half(recall, precision),
        thresholds=thresholds,
        recall=recall,
        precision=precision,
        f=f_measure(recall, precision),
        images=images or [],
    )


def summarize(images: Sequence[ImageCounts], protocol: BoundaryProtocol) -> Summary:
    """Scores of a data set from the counts of its images.

    Raises:
        ValueError: there are none, or they have another number of thresholds.
    """
    total = add_counts(images)
    best = add_counts([at_best_threshold(image, protocol.empty) for image in images])
    thresholds = np.asarray(protocol.thresholds)
    points = [
        best_point(thresholds, *recall_precision(image, protocol.empty), interpolate=protocol.interpolate)
        for image in images
    ]
    return summarize_sums(total, best, protocol, points)
