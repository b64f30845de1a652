"""Residual blocks of ResNets (He et al., CVPR 2016), outside a ResNet."""

from __future__ import annotations

from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn


def basic_block(in_channels: int, out_channels: int) -> BasicBlock:
    """Two 3x3 convolutions and the input, which passes a 1x1 convolution where the width changes."""
    return BasicBlock(in_channels, out_channels, downsample=_shortcut(in_channels, out_channels))


def bottleneck(in_channels: int, out_channels: int) -> Bottleneck:
    """Convolutions 1x1, 3x3, 1x1, the middle one a quarter as wide, and the input likewise.

    Raises:
        ValueError: `out_channels` is no multiple of 4.
    """
    if out_channels % 4:
        raise ValueError(f"bottleneck: out_channels={out_channels} must be a multiple of 4.")
    return Bottleneck(in_channels, out_channels // 4, downsample=_shortcut(in_channels, out_channels))


def _shortcut(in_channels: int, out_channels: int) -> nn.Module | None:
    if in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
