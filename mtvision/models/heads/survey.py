"""Heads of the survey's code (Vandenhende et al., TPAMI 2021) for HRNet: `ConvHead` with more before it."""

from __future__ import annotations

from torch import Tensor, nn

from mtvision.core.registry import HEADS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.heads.output import as_convolution
from mtvision.models.layers.residual import bottleneck


@HEADS.register_module()
class HighResolutionHead(nn.Module):
    """1x1 convolution of the same width with bias, batch norm, ReLU, 1x1 convolution (Sun et al., 2019).

    It expects all levels at one size side by side, as `ConcatDecoder` and `MTINetDecoder` give them.

    Args:
        in_channels: of the feature map (supplied).
        task: whose logits are made (supplied).
    """

    def __init__(self, in_channels: int, task: Task) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 1),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, task.out_channels, 1),
        )

    def output_layer(self) -> nn.Conv2d:
        """See `mtvision.models.heads.output`."""
        return as_convolution(self.layers[-1])

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (B, task.out_channels, h, w) of a map (B, in_channels, h, w)."""
        logits: Tensor = self.layers(feature)
        return logits


@HEADS.register_module()
class ResidualHead(nn.Module):
    """Bottlenecks of the same width and a 1x1 convolution: PAD-Net's final prediction.

    Args:
        in_channels: of the feature map, a multiple of 4 (supplied).
        task: whose logits are made (supplied).
        num_blocks: bottlenecks.
    """

    def __init__(self, in_channels: int, task: Task, *, num_blocks: Positive = 2) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(bottleneck(in_channels, in_channels) for _ in range(num_blocks)))
        self.logits = nn.Conv2d(in_channels, task.out_channels, 1)

    def output_layer(self) -> nn.Conv2d:
        """See `mtvision.models.heads.output`."""
        return self.logits

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (B, task.out_channels, h, w) of a map (B, in_channels, h, w)."""
        logits: Tensor = self.logits(self.blocks(feature))
        return logits
