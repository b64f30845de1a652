"""Angles between predicted and true surface normals, pooled over every valid pixel of the split."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan, pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from mtvision.core.registry import METRICS
from mtvision.core.values import Positive
from mtvision.metrics.checks import PredictionError, first
from mtvision.metrics.sums import Metric, Ranges, Sums, check_shapes

LIMITS = ("11.25", "22.5", "30")
"""Angles in degrees below which pixels count as right."""
SHORTEST = 1e-12
"""Vectors shorter than this have no direction: they are not brought to length 1."""
_CLEAR = 1e-9  # a length that needs no closer look, whatever it was rounded from
_BLOCK = 1 << 14  # pixels at a time on a CPU, so that they stay in its cache


def angles(prediction: Tensor, label: Tensor) -> Tensor:
    """Angle in degrees between vectors along the first axis: 2 atan2(|p - g|, |p + g|).

    Both are scaled to length 1 first (zero vectors stay zero, which gives 90 degrees). Unlike the arc cosine
    of a dot product it keeps full precision near 0 and 180 degrees.

    Args:
        prediction: (3, ...).
        label: (3, ...), finite.

    Returns:
        float64 of shape (...), in 0..180.
    """
    block = _BLOCK if prediction.device.type == "cpu" else max(label[0].numel(), 1)
    pairs = zip(*(torch.split(x.flatten(1), block, 1) for x in (prediction, label)), strict=True)
    return torch.cat([_angles(*pair) for pair in pairs]).view(prediction.shape[1:])


def _angles(prediction: Tensor, label: Tensor) -> Tensor:
    """`angles` of (3, N), few enough that what is computed on the way stays in the cache."""
    p, g = _unit(prediction.double()), _unit(label.double())
    return 360 / pi * torch.atan2(_length(p - g), _length(p + g))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (3, ...) scaled to length 1, those shorter than `SHORTEST` by its inverse."""
    return vectors / _length(vectors).clamp_(min=SHORTEST)


def _length(vectors: Tensor) -> Tensor:
    """Lengths (...) of vectors (3, ...); `Tensor.norm` over the first axis is slower by a factor of 20."""
    return _squared(vectors).sqrt_()


def _squared(vectors: Tensor) -> Tensor:
    x, y, z = vectors
    squared: Tensor = (x * x).addcmul_(y, y).addcmul_(z, z)
    return squared


@METRICS.register_module("normals")
@dataclass(frozen=True, kw_only=True)
class Normals(Metric):
    """Mean, median and root mean square angle, and shares below 11.25, 22.5 and 30 degrees.

    All valid pixels of the split are pooled, as InvPT, TaskPrompter, MTMamba and LibMTL do; per-batch means
    and medians (NashMTL, FAMO) are `mtvision.metrics.sums.score_by_groups`. A pixel is valid where all three
    channels of the label are finite and not all zero.

    The median comes from a histogram over 0..180 degrees with linear interpolation inside a bin, so that it
    can be added over images. It differs from the exact median by at most one bin width, 180 / `bins` degrees.

    Args:
        bins: number of histogram bins.
    """

    on_device: ClassVar[bool] = True
    ranges: ClassVar[Ranges] = {
        "mean": (0.0, 180.0), "median": (0.0, 180.0), "rmse": (0.0, 180.0),
        "11.25": (0.0, 1.0), "22.5": (0.0, 1.0), "30": (0.0, 1.0),
    }  # fmt: skip

    bins: Positive = 3600

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"normals: bins must be positive, got {self.bins}.")

    def check_prediction(self, prediction: Tensor, label: Tensor) -> None:
        """Refuse vectors without a direction at labelled pixels, besides what no metric takes."""
        super().check_prediction(prediction, label)
        if prediction.shape != label.shape:
            return  # `measure` says so
        squared = _squared(prediction.float())
        if bool(((squared > _CLEAR**2) & (squared < inf)).all()):
            return
        length = _length(prediction.double())
        valid = _labelled(label)
        wrong = valid & ((length < SHORTEST) | length.isinf())
        if bool(wrong.any()):
            raise PredictionError(
                f"{int(wrong.sum()):,} of {int(valid.sum()):,} labelled pixels with vectors of zero or "
                f"infinite length, the first at {first(wrong)}",
                f"vectors of length {SHORTEST:g} or more",
            )

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Sums of one image.

        Args:
            prediction: vectors of any length, (3, H, W).
            label: true vectors, (3, H, W), NaN or zero = none.

        Returns:
            `angle`, `squared`: float64 sums in degrees; `within`: int64 (3,); `histogram`: int64 (bins,);
            `pixels`.

        Raises:
            ValueError: the shapes differ or are not (3, H, W).
        """
        check_shapes("normals", prediction, label, channels=3)
        valid = _labelled(label)
        angle = angles(prediction, label)[valid]
        bin_index = (angle * (self.bins / 180)).nan_to_num(nan=0).long().clamp(max=self.bins - 1)
        sums = {
            "angle": angle.sum(),
            "squared": angle.square().sum(),
            "within": torch.stack([(angle < float(limit)).sum() for limit in LIMITS]),
            "histogram": torch.bincount(bin_index, minlength=self.bins),
            "pixels": valid.sum(),
        }
        return {name: value.cpu() for name, value in sums.items()}

    def score(self, sums: Sums) -> dict[str, float]:
        """`mean`, `median`, `rmse` in degrees, `11.25`, `22.5`, `30` as fractions; NaN if none was valid."""
        pixels = int(sums["pixels"])
        if pixels == 0:
            return dict.fromkeys(("mean", "median", "rmse", *LIMITS), nan)
        shares = {name: count / pixels for name, count in zip(LIMITS, sums["within"].tolist(), strict=True)}
        return {
            "mean": float(sums["angle"]) / pixels,
            "median": self._median(sums["histogram"]),
            "rmse": sqrt(float(sums["squared"]) / pixels),
            **shares,
        }

    def has_label(self, sums: Sums) -> bool:
        """Whether any pixel was valid."""
        return bool(sums["pixels"] > 0)

    def _median(self, histogram: Tensor) -> float:
        cumulative = histogram.double().cumsum(dim=0)
        half = cumulative[-1] / 2
        index = int(torch.searchsorted(cumulative, half))
        before = float(cumulative[index - 1]) if index else 0.0
        inside = (float(half) - before) / float(histogram[index])
        return (index + inside) * 180 / self.bins


def _labelled(label: Tensor) -> Tensor:
    """Pixels with a true vector, bool (H, W)."""
    x, y, z = label.abs()
    largest = torch.maximum(torch.maximum(x, y), z)  # NaN if any of the three is
    return (largest > 0) & (largest < inf)
