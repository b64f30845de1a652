"""A head that doubles the resolution first."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from mtvision.core.registry import HEADS
from mtvision.core.task import Task


@HEADS.register_module()
class DeconvHead(nn.Module):
    """Transposed 2x2 convolution to half the channels, 3x3 convolution, each with norm and GELU, then 1x1.

    The head of TaskPrompter (ICLR 2023) on a Swin Transformer.

    Args:
        in_channels: of the feature map (supplied).
        task: whose logits are made (supplied).
    """

    def __init__(self, in_channels: int, task: Task) -> None:
        super().__init__()
        half = in_channels // 2
        self.hidden = nn.Sequential(
            nn.ConvTranspose2d(in_channels, half, 2, stride=2),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
        )
        self.logits = nn.Conv2d(half, task.out_channels, 1)

    def output_layer(self) -> nn.Conv2d:
        """See `mtvision.models.heads.output`."""
        return self.logits

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (B, task.out_channels, 2h, 2w) of a map (B, in_channels, h, w)."""
        return cast(Tensor, self.logits(self.hidden(feature)))
