"""Absolute error: metric depth and disparity."""

from __future__ import annotations

from torch import Tensor

from mtvision.core.registry import LOSSES
from mtvision.losses.loss import Loss, at_least_one, keep


@LOSSES.register_module()
class L1Loss(Loss):
    """Mean absolute error on the raw linear output.

    L = (1/n) Σ_V |z − d|, n = max(|V|, 1), V = values with a label in the batch. It is the same in all
    families. They mark missing values by 255 (InvPT, MTMamba), −1 (TaskPrompter), 0 (MLoRE,
    TaskDiffusion, MTAN); here it is NaN, which no zoom can turn into a value. Equal on NYUD.
    """

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean over the labelled values that `counts` holds."""
        if logits.shape != label.shape:
            raise ValueError(
                f"L1Loss: logits have shape {tuple(logits.shape)} but the label has {tuple(label.shape)}."
            )
        valid = ~label.isnan()
        prediction, truth = keep(valid, logits, label)
        return (prediction - truth).abs().sum() / at_least_one(counts[0])
