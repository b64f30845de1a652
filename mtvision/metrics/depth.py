"""Depth and disparity errors, pooled over every valid pixel of the split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from mtvision.core.registry import METRICS
from mtvision.core.values import Rate
from mtvision.metrics.sums import Metric, Ranges, Sums, check_shapes

FLOOR = 1e-9
"""What a predicted depth of zero or less is raised to (InvPT `eval_depth.py`)."""


@METRICS.register_module("depth")
@dataclass(frozen=True, kw_only=True)
class Depth(Metric):
    """Errors of depth maps, with z the prediction and d the truth over the N valid pixels of all images.

        rmse     = sqrt(sum (z - d)^2 / N)        log_rmse = sqrt(sum (ln z - ln d)^2 / N)
        abs_rel  = sum |z - d| / d / N            sq_rel   = sum (z - d)^2 / d / N
        delta<k> = share of pixels with max(z/d, d/z) < 1.25^k, k = 1, 2, 3
        abs_err  = sum |z - d| / N                rel_err  = sum |z - d| / d / N

    Pooling pixels of the whole split is what the papers print (InvPT, TaskPrompter, MTMamba, LibMTL); the
    mean of per-image or per-batch values is `mtvision.metrics.sums.score_by_groups`.
    The first seven raise predictions at or below zero to 1e-9 (family A); `abs_err` and `rel_err` take the
    prediction as it is (family C: MTAN, NashMTL, LibMTL). Valid means that the label is finite and positive.

    Args:
        clamp: whether `rmse` raises predictions as well. False takes them as they are, below zero too, as
            the metric of ATRC's code (ICCV 2021). The other scores stay as above.
        max_depth: leave out pixels whose true value is at or beyond this (80 for Cityscapes disparity); None
            keeps all.
    """

    on_device: ClassVar[bool] = True
    ranges: ClassVar[Ranges] = {
        "rmse": (0.0, None), "log_rmse": (0.0, None), "abs_rel": (0.0, None), "sq_rel": (0.0, None),
        "delta1": (0.0, 1.0), "delta2": (0.0, 1.0), "delta3": (0.0, 1.0),
        "abs_err": (0.0, None), "rel_err": (0.0, None),
    }  # fmt: skip

    clamp: bool = True
    max_depth: Rate | None = None

    @property
    def activation(self) -> str | None:
        """Logits as they are for an `rmse` without the clamp; the task's own otherwise."""
        return None if self.clamp else "identity"

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Sums of one image.

        Args:
            prediction: depth in the label's unit, (1, H, W).
            label: true depth, (1, H, W); NaN, infinite, zero or negative = no reading.

        Returns:
            float64 scalars, and int64 `pixels` (valid), `not_positive` (of these, predicted at or below
            zero), `cut` (readings left out by `max_depth`).

        Raises:
            ValueError: the shapes differ or are not (1, H, W).
        """
        check_shapes("depth", prediction, label, channels=1)
        valid = torch.isfinite(label) & (label > 0)
        readings = valid.sum()
        if self.max_depth is not None:
            valid = valid & (label < self.max_depth)
        true, raw = label[valid].double(), prediction[valid].double()
        guess = raw.clamp(min=FLOOR)
        error, ratio = guess - true, torch.maximum(guess / true, true / guess)
        sums = {
            "squared": (error if self.clamp else raw - true).square().sum(),
            "squared_log": (guess.log() - true.log()).square().sum(),
            "relative": (error.abs() / true).sum(),
            "squared_relative": (error.square() / true).sum(),
            "absolute": (raw - true).abs().sum(),
            "raw_relative": ((raw - true).abs() / true).sum(),
            "within": torch.stack([(ratio < 1.25**power).sum() for power in (1, 2, 3)]),
            "pixels": valid.sum(),
            "not_positive": (raw <= 0).sum(),
            "cut": readings - valid.sum(),
        }
        return {name: value.cpu() for name, value in sums.items()}

    def score(self, sums: Sums) -> dict[str, float]:
        """The errors in the label's unit and `delta1..3` as fractions; NaN when no pixel was valid."""
        pixels = int(sums["pixels"])
        mean = {
            name: float(value) / pixels if pixels else nan for name, value in sums.items() if value.ndim == 0
        }
        within = [value / pixels if pixels else nan for value in sums["within"].tolist()]
        return {
            "rmse": sqrt(mean["squared"]),
            "log_rmse": sqrt(mean["squared_log"]),
            "abs_rel": mean["relative"],
            "sq_rel": mean["squared_relative"],
            "delta1": within[0],
            "delta2": within[1],
            "delta3": within[2],
            "abs_err": mean["absolute"],
            "rel_err": mean["raw_relative"],
        }

    def has_label(self, sums: Sums) -> bool:
        """Whether any pixel was valid."""
        return bool(sums["pixels"] > 0)

    def remarks(self, per_image: Sequence[Sums]) -> list[str]:
        """How many predictions are at or below zero, and as what they count."""
        counts = [int(sums["not_positive"]) for sums in per_image]
        if not any(counts):
            return []
        pixels = sum(int(sums["pixels"]) for sums in per_image)
        as_they_are = "abs_err and rel_err" if self.clamp else "rmse, abs_err and rel_err"
        return [
            f"{sum(counts):,} of {pixels:,} scored pixels, in {sum(map(bool, counts)):,} of "
            f"{len(counts):,} images, are predicted at or below zero. They count as {FLOOR:g}, "
            f"in {as_they_are} as they are."
        ]
