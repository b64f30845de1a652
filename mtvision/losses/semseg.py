"""Cross-entropy over classes: semantic segmentation, human parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.registry import LOSSES
from mtvision.core.task import IGNORE, Task
from mtvision.core.values import Factor
from mtvision.losses.loss import Loss, at_least_one, keep, labelled, stacked_counts


@LOSSES.register_module()
class CrossEntropyLoss(Loss):
    """Cross-entropy over the labelled pixels, with equal or given weights of the classes.

    L = (1/n) Σ_V −ln softmax(z)_y, n = max(|V|, 1), V = pixels with a label in the batch. It is the same in
    all families (InvPT `losses/loss_functions.py`; MTI-Net's and LibMTL's NaN for an empty V
    is 0 here). Ids outside 0..C−1 are refused where labels are read from disk.

    With weights, L = Σ_V w_y · (−ln softmax(z)_y) / Σ_V w_y, as torch's `cross_entropy(weight=w)`. Both sums
    run over the whole batch where `training.loss_means` says so. Pixels of classes with weight 0 count
    nothing.

    Args:
        class_weights: one factor >= 0 per class, in the order of ids; None = 1 for all.

    Raises:
        ValueError: a weight is negative, infinite or NaN, or all are 0.
    """

    label_axes = 3

    def __init__(self, class_weights: Sequence[Factor] | None = None) -> None:
        self.class_weights = None if class_weights is None else tuple(float(item) for item in class_weights)
        if self.class_weights is None:
            return
        if not all(0 <= item < float("inf") for item in self.class_weights) or not any(self.class_weights):
            raise ValueError(
                f"CrossEntropyLoss: class_weights={list(self.class_weights)}; every weight must be a number "
                "of at least 0, and one must be above 0."
            )

    def check_task(self, task: Task) -> None:
        """Refuse class weights that are not one per class of the task."""
        if self.class_weights is None or len(self.class_weights) == task.out_channels:
            return
        raise ValueError(
            f"CrossEntropyLoss: {len(self.class_weights)} class_weights for the {task.out_channels} classes "
            f"of {task.name}; give one per class, in the order of class_names."
        )

    def counts(self, label: Tensor) -> Tensor:
        """Number of labelled pixels and, with class weights, the sum of their weights."""
        valid = labelled(label)
        if self.class_weights is None:
            return stacked_counts(valid.sum())
        weights = torch.tensor(self.class_weights, dtype=torch.float64, device=label.device)
        ids = label.masked_fill(~valid, 0)
        return stacked_counts(valid.sum(), torch.where(valid, weights[ids], 0).sum())

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean over the labelled pixels that `counts` holds."""
        valid = label != IGNORE
        (scores,) = keep(valid[:, None], logits)
        if self.class_weights is None:
            total = F.cross_entropy(scores, label, ignore_index=IGNORE, reduction="sum")
            return total / at_least_one(counts[0])
        weights = torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)
        total = F.cross_entropy(scores, label, weights, ignore_index=IGNORE, reduction="sum")
        return total / torch.where(counts[1] > 0, counts[1], 1)
