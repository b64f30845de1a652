"""Cross-entropy over classes: semantic segmentation, human parts."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mtvision.core.registry import LOSSES
from mtvision.core.task import IGNORE
from mtvision.losses.loss import Loss, at_least_one, keep


@LOSSES.register_module()
class CrossEntropyLoss(Loss):
    """Unweighted cross-entropy over the labelled pixels.

    L = (1/n) Σ_V −ln softmax(z)_y, n = max(|V|, 1), V = pixels with a label in the batch. It is the same in
    all families (InvPT `losses/loss_functions.py`; MTI-Net's and LibMTL's NaN for an empty V
    is 0 here). Ids outside 0..C−1 are refused where labels are read from disk.
    """

    label_axes = 3

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean over the labelled pixels that `counts` holds."""
        valid = label != IGNORE
        (scores,) = keep(valid[:, None], logits)
        total = F.cross_entropy(scores, label, ignore_index=IGNORE, reduction="sum")
        return total / at_least_one(counts[0])
