"""The loss of the albedo task."""

from __future__ import annotations

from torch import Tensor

from mtvision.core.registry import LOSSES
from mtvision.losses.loss import Loss, at_least_one, keep


@LOSSES.register_module()
class CharbonnierLoss(Loss):
    """Absolute error with a round tip (Charbonnier et al., ICIP 1994): mean of sqrt(d² + s²) - s.

    Args:
        softness: s > 0, the error below which the loss is nearly quadratic.
    """

    def __init__(self, *, softness: float = 0.01) -> None:
        if softness <= 0:
            raise ValueError(f"CharbonnierLoss: softness must be positive, got {softness}.")
        self.softness = softness

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean over the labelled values that `counts` holds; logits and label are (B, C, H, W)."""
        (error,) = keep(~label.isnan(), logits - label)
        values = (error.square() + self.softness**2).sqrt() - self.softness
        return values.sum() / at_least_one(counts[0])
