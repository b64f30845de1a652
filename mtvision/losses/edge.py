"""Boundaries: binary cross-entropy with weighted classes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.registry import LOSSES
from mtvision.core.values import Factor
from mtvision.losses.loss import (
    Loss,
    at_least_one,
    keep,
    pixels_of_labelled_samples,
    stacked_counts,
)


def balanced_terms(logits: Tensor, positive: Tensor, weight: Tensor | float) -> Tensor:
    """w·y·softplus(−z) + (1−w)·(1−y)·softplus(z), per pixel."""
    return weight * positive * F.softplus(-logits) + (1 - weight) * (1 - positive) * F.softplus(logits)


@LOSSES.register_module()
class EdgeLoss(Loss):
    """Binary cross-entropy with weighted classes.

    L = (1/n) Σ_V [ w·y·softplus(−z) + (1−w)·(1−y)·softplus(z) ]. Published code writes it as cross-entropy
    with `pos_weight` w/(1−w), times (1−w). The numbers are equal.

    Args:
        positive_weight: w in 0..1; 0.95 in most papers (see docs/losses.md), None = number of negative over
            number of valid pixels of the batch (Xie and Tu, HED).
        average: `valid` (InvPT and its descendants): n = max(|V|, 1). `all` (MTI-Net, M3ViT, LoRA line): n is
            the number of pixels of the samples that have a label. On data without ignored pixels, as in that
            family, both are equal.
        threshold: labels at or above it count as 1, others as 0 (`survey`: 0.5); None takes them as they are.
    """

    logits_channels = 1

    def __init__(
        self,
        positive_weight: Factor | None = 0.95,
        average: Literal["valid", "all"] = "valid",
        threshold: float | None = None,
    ) -> None:
        if positive_weight is not None and not 0 <= positive_weight <= 1:
            raise ValueError(f"EdgeLoss: positive_weight must be in 0..1 or None, got {positive_weight}.")
        if average not in ("valid", "all"):
            raise ValueError(f"EdgeLoss: average must be 'valid' or 'all', got {average!r}.")
        self.positive_weight = positive_weight
        self.average = average
        self.threshold = threshold

    def counts(self, label: Tensor) -> Tensor:
        """Labelled pixels, the sum of their labels, pixels of samples that have a label, (3,)."""
        valid = ~label.isnan()
        (y,) = keep(valid, label)
        return stacked_counts(valid.sum(), self._binary(y).double().sum(), pixels_of_labelled_samples(valid))

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean of the weighted terms over the pixels that `counts` holds."""
        if label.shape[1] != 1:
            raise ValueError(f"EdgeLoss: label has shape {tuple(label.shape)}, expected (B, 1, H, W).")
        valid = ~label.isnan()
        z, y = keep(valid, logits, label)
        count, positive, all_pixels = counts
        share = self.positive_weight
        weight = 1 - positive / at_least_one(count) if share is None else share
        terms = torch.where(valid, balanced_terms(z, self._binary(y), weight), 0)
        divisor = count if self.average == "valid" else all_pixels
        return terms.sum() / at_least_one(divisor)

    def _binary(self, y: Tensor) -> Tensor:
        return y if self.threshold is None else (y >= self.threshold).to(y.dtype)


@LOSSES.register_module()
class ShareEdgeLoss(EdgeLoss):
    """`EdgeLoss` of labels whose channel 0 is the share of annotators; the other channels are for scoring."""

    def counts(self, label: Tensor) -> Tensor:
        """Those of channel 0."""
        return super().counts(label[:, :1])

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """The loss of channel 0."""
        return super().compute(logits, label[:, :1], counts)
