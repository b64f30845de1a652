"""A metric of the albedo task; `values` of mtvision is the other one."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt
from typing import ClassVar

from torch import Tensor

from mtvision.core.registry import METRICS
from mtvision.metrics.sums import Metric, Ranges, Sums, check_shapes


@METRICS.register_module("albedo_error")
@dataclass(frozen=True, kw_only=True)
class AlbedoError(Metric):
    """Root mean square error over all labelled values, with the best brightness per image.

        si_rmse = sqrt(sum (a p - t)² / N), with a = sum p t / sum p² of the image

    An image fixes albedo only up to one factor, the brightness of the light.
    """

    ranges: ClassVar[Ranges] = {"si_rmse": (0.0, None)}

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Sums of one image: prediction and label (3, H, W), NaN = no label."""
        check_shapes("albedo_error", prediction, label, channels=3)
        valid = ~label.isnan()
        p, t = prediction[valid].double(), label[valid].double()
        scale = (p * t).sum() / p.square().sum().clamp(min=1e-12)
        return {"values": valid.sum().cpu(), "squares": (scale * p - t).square().sum().cpu()}

    def score(self, sums: Sums) -> dict[str, float]:
        """`si_rmse`; NaN where nothing was labelled."""
        values = int(sums["values"])
        return {"si_rmse": sqrt(sums["squares"] / values) if values else nan}
