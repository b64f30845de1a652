"""Heads: a task's feature map to its logits."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mtvision.core.pyramid import size_of
from mtvision.core.registry import HEADS
from mtvision.core.task import Task
from mtvision.core.values import Positive, Share
from mtvision.models.layers import ConvNorm, NormName, enlarge, norm_layer
from mtvision.models.layers.enlarged import convolved


@HEADS.register_module()
class ConvHead(nn.Module):
    """A convolution to the task's channels, optionally after a hidden 3x3 convolution.

    Args:
        in_channels: of the feature map (supplied).
        task: whose logits are made (supplied).
        hidden: channels of the hidden layer (3x3 convolution, norm, activation); None for none.
        kernel: side of the last convolution, odd.
        dropout: probability of dropping a whole channel before the last convolution.
        norm: of the hidden layer, `batch` or `group`.
        activation: of the hidden layer, `relu`, or `gelu` after a convolution with bias (the head of
            TaskPrompter, ICLR 2023, and of MLoRE).
        enlarge: factor by which maps are enlarged bilinearly before the first convolution, like a decoder's
            `upscale`. On a CPU the hidden convolution is then computed at the maps' own size, in a fraction
            of the time (`mtvision.models.layers.enlarged`). Numbers are the same to rounding.

    Raises:
        ValueError: `kernel` is even, which would shift the map, or there is no such activation.
    """

    def __init__(
        self,
        in_channels: int,
        task: Task,
        *,
        hidden: Positive | None = None,
        kernel: Positive = 1,
        dropout: Share = 0.0,
        norm: NormName = "batch",
        activation: Literal["relu", "gelu"] = "relu",
        enlarge: Positive = 1,
    ) -> None:
        super().__init__()
        if activation not in ("relu", "gelu"):
            raise ValueError(f"ConvHead: activation={activation!r}; choose 'relu' or 'gelu'.")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"ConvHead: kernel={kernel}; give an odd number, an even one shifts the map.")
        self.enlarge = enlarge
        self.hidden = nn.Sequential()
        if hidden is not None and activation == "relu":
            self.hidden = ConvNorm(in_channels, hidden, norm=norm)
        elif hidden is not None:
            conv = nn.Conv2d(in_channels, hidden, 3, padding=1)
            self.hidden = nn.Sequential(conv, norm_layer(norm, hidden), nn.GELU())
        self.dropout = nn.Dropout2d(dropout)
        self.logits = nn.Conv2d(hidden or in_channels, task.out_channels, kernel, padding=kernel // 2)

    def output_layer(self) -> nn.Conv2d:
        """See `mtvision.models.heads.output`."""
        return self.logits

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (B, task.out_channels, e h, e w) of a map (B, in_channels, h, w), e = `enlarge`."""
        logits: Tensor = self.logits(self.dropout(self._hidden(feature)))
        return logits

    def _hidden(self, feature: Tensor) -> Tensor:
        if not len(self.hidden) or self.enlarge == 1:
            hidden: Tensor = self.hidden(enlarge(feature, self.enlarge))
            return hidden
        first, *rest = self.hidden
        height, width = size_of(feature)
        feature = convolved(first, [feature], (self.enlarge * height, self.enlarge * width))
        for layer in rest:
            feature = layer(feature)
        return feature
