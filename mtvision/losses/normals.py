"""Surface normals: absolute error and cosine, of predictions made unit length.

Labels are used as they are: 8-bit files are not exactly unit length, and no published code corrects that.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from mtvision.core.registry import LOSSES
from mtvision.losses.loss import Loss, at_least_one, keep, stacked_counts


@LOSSES.register_module()
class NormalsL1Loss(Loss):
    """Absolute error of unit vectors: Σ |p̂_c − g_c| with p̂ = z / max(‖z‖₂, 1e-12).

    Args:
        channels: `sum` (InvPT and its descendants): a pixel is valid if all three channels are, channels are
            summed and pixels averaged, (1/n) Σ_V Σ_c. `mean` (MTI-Net, M3ViT, LoRA line): every channel is
            valid by itself, and all valid values are averaged. This is a third of `sum` for the same weight.
    """

    logits_channels = 3

    def __init__(self, channels: Literal["sum", "mean"] = "sum") -> None:
        if channels not in ("sum", "mean"):
            raise ValueError(f"NormalsL1Loss: channels must be 'sum' or 'mean', got {channels!r}.")
        self.channels = channels

    def counts(self, label: Tensor) -> Tensor:
        """Number of labelled pixels (`sum`) or labelled values (`mean`), (1,)."""
        return stacked_counts(self._valid(label).sum())

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean over the labelled pixels (`sum`) or labelled values (`mean`) that `counts` holds."""
        known, valid = ~label.isnan(), self._valid(label)
        # Logits are masked per pixel: a vector with one channel missing keeps its direction.
        (vectors,) = keep(known.any(dim=1, keepdim=True), logits)
        prediction, truth = keep(valid, F.normalize(vectors, dim=1), label)
        return (prediction - truth).abs().sum() / at_least_one(counts[0])

    def _valid(self, label: Tensor) -> Tensor:
        known = ~label.isnan()
        return known.all(dim=1, keepdim=True) if self.channels == "sum" else known


@LOSSES.register_module()
class NormalsCosineLoss(Loss):
    """One minus the cosine, as in MTAN, LibMTL and Nash-MTL: L = 1 − (1/n) Σ_V ⟨p̂, g⟩.

    p̂ = z / max(‖z‖₂, 1e-12).

    Its mask is a label whose channels do not add up to 0; the loaders of that family turn the others into
    NaN. An empty V gives 0, where the published code divides by 0.
    """

    logits_channels = 3

    def counts(self, label: Tensor) -> Tensor:
        """Number of pixels with a label in all channels, (1,)."""
        return stacked_counts((~label.isnan()).all(dim=1).sum())

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Mean over the labelled pixels that `counts` holds."""
        valid = (~label.isnan()).all(dim=1, keepdim=True)
        vectors, truth = keep(valid, logits, label)
        cosine = (F.normalize(vectors, dim=1) * truth).sum()
        return (valid.sum() - cosine) / at_least_one(counts[0])
