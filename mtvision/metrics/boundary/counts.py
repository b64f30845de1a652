"""One image: from a boundary map and its ground truth to counts at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtvision.metrics.boundary.matching import Matcher
from mtvision.metrics.boundary.nms import smooth, suppress
from mtvision.metrics.boundary.protocols import BoundaryProtocol
from mtvision.metrics.boundary.thin import thin

Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
Strengths = NDArray[np.floating]


@dataclass(frozen=True)
class ImageCounts:
    """Pixels per threshold, each int64 (T,); the reference's names in brackets.

    Args:
        matched_truth: true pixels with a partner, added over annotators (cntR).
        truth: true pixels, added over annotators (sumR).
        matched_prediction: predicted pixels with a partner in any annotator's map (cntP).
        prediction: predicted pixels (sumP).
    """

    matched_truth: Counts
    truth: Counts
    matched_prediction: Counts
    prediction: Counts


def quantize(strengths: Strengths) -> NDArray[np.uint8]:
    """Probabilities as the 8-bit image the papers write: floor(255 p)."""
    return np.floor(np.asarray(strengths) * 255).astype(np.uint8)


def prepare(strengths: Strengths, protocol: BoundaryProtocol) -> Strengths:
    """Quantise, smooth and suppress a map (H, W) of probabilities as the protocol says; the input is not
    changed.

    Raises:
        ValueError: the map is not (H, W) or has values outside 0..1.
    """
    strengths = np.asarray(strengths)
    if strengths.ndim != 2:
        raise ValueError(f"a boundary map must be (H, W), got {strengths.shape}.")
    if not (strengths.size and strengths.min() >= 0 and strengths.max() <= 1):
        raise ValueError(
            "a boundary map must hold probabilities in 0..1 without NaN; apply the sigmoid to logits, "
            "divide 8-bit values by 255."
        )
    if protocol.quantize:
        strengths = quantize(strengths) / 255
    if protocol.smoothing:
        strengths = smooth(strengths.astype(np.float32), protocol.smoothing)
    if protocol.suppression:
        strengths = suppress(strengths.astype(np.float32), radius=protocol.suppression)
    if protocol.requantize:
        strengths = np.floor(strengths * 255 + 0.5) / 255
    return strengths


def count_image(strengths: Strengths, truths: Sequence[Flags], protocol: BoundaryProtocol) -> ImageCounts:
    """Count matched and unmatched pixels of one image at every threshold.

    Args:
        strengths: probability of a boundary, (H, W).
        truths: boundary pixels of every annotator, each (H, W), already thinned where the protocol asks for
            it.
        protocol: thresholds, suppression and matching radius.

    Raises:
        ValueError: no annotator, another size, or values outside 0..1.
    """
    if not truths:
        raise ValueError("a ground truth needs at least one annotator's boundary map.")
    for truth in truths:
        if truth.shape != strengths.shape:
            raise ValueError(
                f"the prediction is {'x'.join(map(str, strengths.shape))} pixels but the ground truth "
                f"{'x'.join(map(str, truth.shape))}; crop or resize it to the image's original size."
            )
    prepared = prepare(strengths, protocol)
    radius = protocol.max_distance * float(np.hypot(*prepared.shape))
    # Which of several equally good matches is taken shows in the union over annotators alone. There, SciPy's
    # solver is used everywhere, so that counts do not depend on whether a compiler is installed.
    compiled = len(truths) == 1
    matchers = [Matcher(np.asarray(truth, dtype=bool), radius, compiled=compiled) for truth in truths]
    number_true = sum(int(truth.sum()) for truth in truths)
    columns: list[tuple[int, int, int, int]] = []
    binary = thinned = np.zeros(prepared.shape, dtype=bool)
    column = (0, number_true, 0, 0)
    for threshold in protocol.thresholds:
        # A Python float keeps the comparison in the map's own precision, float32 after suppression, as in
        # MATLAB.
        above = prepared > threshold if protocol.strict else prepared >= threshold
        if not np.array_equal(above, binary):
            binary, before = above, thinned
            thinned = thin(above)
            if not np.array_equal(thinned, before):
                column = _count(thinned, matchers, number_true)
        columns.append(column)
    return ImageCounts(*np.array(columns, dtype=np.int64).T.copy())


def _count(thinned: Flags, matchers: Sequence[Matcher], number_true: int) -> tuple[int, int, int, int]:
    matched_any = np.zeros_like(thinned)
    matched_truth = 0
    for matcher in matchers:
        found = matcher.match(thinned)
        matched_any |= found.prediction
        matched_truth += int(found.truth.sum())
    return matched_truth, number_true, int(matched_any.sum()), int(thinned.sum())
