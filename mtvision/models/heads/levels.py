"""The head of SAK and PRISM: a linear layer for each level, then convolutions at a quarter of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtvision.core.pyramid import size_of
from mtvision.core.registry import HEADS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.declarations import Declaration, Declares
from mtvision.models.layers.conv import resize


@HEADS.register_module()
class LevelsHead(nn.Module, Declares):
    """Levels of one size side by side: each is reduced, all are enlarged, fused and mapped to logits.

    Per level a linear layer to `width` channels, bilinear enlargement, 3x3 convolution with bias, batch norm,
    GELU, 1x1 convolution. This is the head of SAK (Lu et al., ICLR 2025) and PRISM (Tang et al., ICML 2026),
    close to SegFormer's. Use it behind `ConcatDecoder` on a plain ViT.

    Args:
        in_channels: of all levels together (supplied).
        task: whose logits are made (supplied).
        levels: how many there are.
        width: channels of a reduced level; None = those of a level over the number of levels, as released.
        enlarge: side of the fused map over that of a level; 4 is a quarter of the image for patches of 16.

    Raises:
        ValueError: the channels cannot be divided into as many levels.
    """

    def __init__(
        self,
        in_channels: int,
        task: Task,
        *,
        levels: Positive = 4,
        width: Positive | None = None,
        enlarge: Positive = 4,
    ) -> None:
        super().__init__()
        if in_channels % levels:
            raise ValueError(
                f"LevelsHead: {in_channels} channels are not {levels} levels of one width. Give as many "
                "levels as the decoder concatenates, of a plain ViT."
            )
        channels = in_channels // levels
        width = width or max(1, channels // levels)
        self.enlarge = enlarge
        self.linears = nn.ModuleList(nn.Linear(channels, width) for _ in range(levels))
        fused = width * levels
        self.fuse = nn.Sequential(nn.Conv2d(fused, fused, 3, padding=1), nn.BatchNorm2d(fused), nn.GELU())
        self.logits = nn.Conv2d(fused, task.out_channels, 1)

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim="levels are told apart by their number of channels")

    def output_layer(self) -> nn.Conv2d:
        """See `mtvision.models.heads.output`."""
        return self.logits

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (B, task.out_channels, enlarge·h, enlarge·w) of a map (B, in_channels, h, w)."""
        height, width = size_of(feature)
        size = (self.enlarge * height, self.enlarge * width)
        parts = feature.permute(0, 2, 3, 1).chunk(len(self.linears), dim=-1)
        reduced = [layer(part).permute(0, 3, 1, 2) for layer, part in zip(self.linears, parts, strict=True)]
        logits: Tensor = self.logits(self.fuse(torch.cat([resize(item, size) for item in reduced], dim=1)))
        return logits
