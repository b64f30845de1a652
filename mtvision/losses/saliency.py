"""Saliency: cross-entropy whose class weights follow the batch.

The weights come from the batch of one process in every published code: with another batch per GPU it is
another loss. With `training.loss_means="global"` they come from the batches of all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.registry import LOSSES
from mtvision.core.task import IGNORE
from mtvision.losses.edge import balanced_terms
from mtvision.losses.loss import (
    Loss,
    at_least_one,
    keep,
    pixels_of_labelled_samples,
    stacked_counts,
)


@LOSSES.register_module()
class BalancedCrossEntropyLoss(Loss):
    """Cross-entropy over two channels, weighted by the share of the other class in the batch.

    L = (1/n) Σ_V w_y · (−ln softmax(z)_y), w₁ = |V₀|/|V|, w₀ = 1 − w₁, n = max(|V|, 1). The divisor is the
    number of pixels, not the sum of weights as in PyTorch's weighted mean (InvPT `losses/loss_functions.py
    BalancedCrossEntropyLoss`). A batch without salient pixels has loss 0.
    """

    logits_channels = 2
    label_axes = 3

    def counts(self, label: Tensor) -> Tensor:
        """Labelled pixels and background pixels, (2,)."""
        return stacked_counts((label != IGNORE).sum(), (label == 0).sum())

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Weighted sum over the labelled pixels, divided by the number that `counts` holds."""
        valid = label != IGNORE
        (scores,) = keep(valid[:, None], logits)
        count = at_least_one(counts[0])
        negatives = counts[1] / count
        weights = torch.stack([1 - negatives, negatives]).to(logits.dtype)
        total = F.cross_entropy(scores, label, weights, ignore_index=IGNORE, reduction="sum")
        return total / count


@LOSSES.register_module()
class BalancedBinaryLoss(Loss):
    """Binary cross-entropy of one logit, weighted by the share of the other class in the batch.

    L = (1/N) Σ [ w·y·softplus(−z) + (1−w)·(1−y)·softplus(z) ], w = |V₀|/|V| of the batch. The saliency loss
    of the MTI-Net, M3ViT, LoRA line. In the published data every pixel has a label, and N is the number of
    all pixels. Here N is the number of pixels of the samples that have a label, see
    `mtvision.losses.loss.pixels_of_labelled_samples`. Pixels without one contribute nothing to the sum.
    """

    logits_channels = 1
    label_axes = 3

    def counts(self, label: Tensor) -> Tensor:
        """Labelled pixels, background pixels, pixels of samples that have a label, (3,)."""
        valid = label != IGNORE
        return stacked_counts(valid.sum(), (label == 0).sum(), pixels_of_labelled_samples(valid))

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean of the weighted terms over the pixels that `counts` holds."""
        valid = label != IGNORE
        z, y = keep(valid, logits[:, 0], label.to(logits.dtype))
        weight = counts[1] / at_least_one(counts[0])
        terms = torch.where(valid, balanced_terms(z, y, weight), 0)
        return terms.sum() / at_least_one(counts[2])
