"""Errors of real-valued maps of any number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt
from typing import ClassVar

from torch import Tensor

from mtvision.core.registry import METRICS
from mtvision.metrics.sums import Metric, Ranges, Sums, check_shapes


@METRICS.register_module("values")
@dataclass(frozen=True, kw_only=True)
class Values(Metric):
    """Mean absolute and root mean square error over all labelled values of all channels of the split.

        mae = sum |p - v| / N        rmse = sqrt(sum (p - v)^2 / N)

    with p the prediction and v the label. A value counts where its label is finite.
    """

    on_device: ClassVar[bool] = True
    ranges: ClassVar[Ranges] = {"mae": (0.0, None), "rmse": (0.0, None)}

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Sums of one image.

        Args:
            prediction: (C, H, W).
            label: (C, H, W), NaN or infinite = no label.

        Returns:
            float64 scalars `absolute` and `squared`, int64 `values`.

        Raises:
            ValueError: the shapes differ.
        """
        check_shapes("values", prediction, label, channels=label.shape[0])
        valid = label.isfinite()
        error = prediction[valid].double() - label[valid].double()
        sums = {"absolute": error.abs().sum(), "squared": error.square().sum(), "values": valid.sum()}
        return {name: item.cpu() for name, item in sums.items()}

    def score(self, sums: Sums) -> dict[str, float]:
        """`mae` and `rmse` in the label's unit; NaN where nothing was labelled."""
        count = int(sums["values"])
        if count == 0:
            return {"mae": nan, "rmse": nan}
        return {"mae": float(sums["absolute"]) / count, "rmse": sqrt(float(sums["squared"]) / count)}
