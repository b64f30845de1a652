"""Boundary F-measures during training and at its end, from the maps the network was trained with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtvision.core.registry import METRICS
from mtvision.core.values import Count, Positive, Rate
from mtvision.metrics.boundary.aggregate import at_best_threshold, summarize_sums
from mtvision.metrics.boundary.counts import ImageCounts, count_image
from mtvision.metrics.boundary.protocols import (
    BSDS,
    LABEL_MAP,
    BoundaryProtocol,
    even_thresholds,
    seism_thresholds,
)
from mtvision.metrics.boundary.thin import thin
from mtvision.metrics.sums import Metric, Ranges, Sums, check_shapes

FIELDS = ("matched_truth", "truth", "matched_prediction", "prediction")


@METRICS.register_module("edge")
@dataclass(frozen=True, kw_only=True)
class Edge(Metric):
    """odsF, oisF, AP and R50 by the SEISM procedure, with the label map as ground truth.

    The prediction is floored to 8 bits, suppressed to its ridges, cut strictly above each threshold and
    thinned. The ground truth is the label of at least .5, thinned. Both are matched one to one at least cost.

    The published odsF uses another ground truth than the training map. On PASCAL-Context it is the boundaries
    of all 459 classes on 2,498 images, on NYUD the edge image read as a segmentation. For numbers that
    compare with a paper's, score saved predictions with `tools/evaluate_boundaries.py`; see docs/boundary.md.
    Its protocol `label-map` repeats this metric on files.

    Args:
        max_distance: largest distance of a matched pair, as a share of the image diagonal: .0075, .011 on
            NYUD.
        thresholds: 101 are SEISM's own; any other number lies evenly in 0..1. Fewer cost proportionally less.
        suppression: radius of the non-maximum suppression, 0 for none.
        strict: `>` a threshold, otherwise `>=`.
    """

    expensive: ClassVar[bool] = True

    ranges: ClassVar[Ranges] = {"odsF": (0.0, 1.0), "oisF": (0.0, 1.0), "AP": (0.0, 1.0), "R50": (0.0, 1.0)}

    max_distance: Rate = 0.0075
    thresholds: Positive = 99
    suppression: Count = 1
    strict: bool = True

    def __post_init__(self) -> None:
        _ = self.protocol  # its own checks refuse bad options

    @cached_property
    def protocol(self) -> BoundaryProtocol:
        """The same options as a protocol of the boundary package."""
        return replace(
            LABEL_MAP,
            max_distance=self.max_distance,
            thresholds=seism_thresholds(self.thresholds),
            strict=self.strict,
            suppression=self.suppression,
        )

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Counts of one image.

        Args:
            prediction: probability of a boundary, (1, H, W), 0..1.
            label: boundary strength, (1, H, W), 0..1, NaN = no label. A margin without labels (padding) is
                cut off and does not count for the diagonal; unlabelled pixels inside are boundaries neither
                there nor here.

        Returns:
            The four counts per threshold, int64 (T,), the same at the image's own best threshold (`ois_...`,
            scalars), and `images`, 1 or 0.

        Raises:
            ValueError: the shapes differ, or the prediction has values outside 0..1.
        """
        check_shapes("edge", prediction, label, channels=1)
        window, known = known_window(label[0])
        if not known.any():
            return self._sums(None)
        truth = (label[0].detach().cpu().numpy()[window] >= 0.5) & known
        return self._sums(count_image(_strengths(prediction, window, known), [thin(truth)], self.protocol))

    def score(self, sums: Sums) -> dict[str, float]:
        """`odsF`, `oisF`, `AP`, `R50` as fractions; all NaN when no image had a label."""
        if int(sums["images"]) == 0:
            return dict.fromkeys(("odsF", "oisF", "AP", "R50"), nan)
        total = ImageCounts(*(sums[name].numpy() for name in FIELDS))
        best = ImageCounts(*(sums[f"ois_{name}"].reshape(1).numpy() for name in FIELDS))
        return summarize_sums(total, best, self.protocol).scores()

    def has_label(self, sums: Sums) -> bool:
        """Whether any image had a label."""
        return bool(sums["images"] > 0)

    def _sums(self, counts: ImageCounts | None) -> Sums:
        zeros = np.zeros(len(self.protocol.thresholds), dtype=np.int64)
        image = counts or ImageCounts(zeros, zeros, zeros, zeros)
        best = at_best_threshold(image, self.protocol.empty)
        sums = {name: torch.from_numpy(getattr(image, name).copy()) for name in FIELDS}
        sums |= {f"ois_{name}": torch.tensor(int(getattr(best, name)[0])) for name in FIELDS}
        return sums | {"images": torch.tensor(int(counts is not None))}


@METRICS.register_module("annotated_edge")
@dataclass(frozen=True, kw_only=True)
class AnnotatedEdge(Edge):
    """The boundary benchmark of BSDS500, with the maps of all annotators as ground truth.

    A predicted pixel is right if it matches a pixel of any annotator. Recall counts the pixels of all of
    them. Predictions are suppressed to their ridges first, as people do before they run the benchmark.

    Args:
        max_distance: see `Edge`.
        thresholds: their number, evenly spaced; 99 are the benchmark's.
        suppression: radius of the non-maximum suppression, 0 for none.
        strict: `>` a threshold, otherwise `>=` as in the benchmark.
    """

    strict: bool = False

    @cached_property
    def protocol(self) -> BoundaryProtocol:
        """The same options as a protocol of the boundary package."""
        return replace(
            BSDS,
            max_distance=self.max_distance,
            thresholds=even_thresholds(self.thresholds),
            strict=self.strict,
            suppression=self.suppression,
        )

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Counts of one image.

        Args:
            prediction: probability of a boundary, (1, H, W), 0..1.
            label: (1 + A, H, W): the share of annotators, then a map of each, 0 or 1. A map of zeros, as
                there is beyond the last annotator, adds nothing. NaN = no label, as in `Edge.measure`.

        Raises:
            ValueError: the shapes differ, there is no annotator, or the prediction has values outside 0..1.
        """
        if label.ndim != 3 or label.shape[0] < 2:
            raise ValueError(
                f"annotated_edge: label has shape {tuple(label.shape)}, expected (1 + annotators, H, W). Use "
                "the metric edge for a single map."
            )
        check_shapes("annotated_edge", prediction, label[:1], channels=1)
        window, known = known_window(label[0])
        if not known.any():
            return self._sums(None)
        maps = label[1:].detach().cpu().numpy()[:, *window] >= 0.5
        truths = [drawn & known for drawn in maps if drawn.any()] or [np.zeros_like(known)]
        return self._sums(count_image(_strengths(prediction, window, known), truths, self.protocol))


Window = tuple[slice, slice]


def known_window(label: Tensor) -> tuple[Window, NDArray[np.bool_]]:
    """Rows and columns without the margin that has no label, and the labelled pixels inside, (H, W)."""
    known = torch.isfinite(label).cpu().numpy()
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if not rows.size:
        return (slice(0), slice(0)), known[:0, :0]
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return window, known[window]


def _strengths(prediction: Tensor, window: Window, known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A prediction (1, H, W) in a window, 0 where there is no label."""
    return np.where(known, prediction[0].detach().cpu().float().numpy()[window], np.float32(0))
