"""Small convolutional building blocks."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.pyramid import size_of

NormName = Literal["batch", "group"]


def norm_layer(norm: NormName, channels: int) -> nn.Module:
    """Normalisation of NCHW maps: `batch`, or `group` (up to 32 groups), which is independent of the batch.

    Raises:
        ValueError: another name.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    raise ValueError(f"norm={norm!r}; choose 'batch' or 'group'.")


class ConvNorm(nn.Sequential):
    """Convolution without bias, normalisation, ReLU; the map keeps its size at stride 1.

    Args:
        in_channels: channels read.
        out_channels: channels written.
        kernel: side of the kernel, odd.
        stride: of the convolution.
        norm: see `norm_layer`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        norm: NormName = "batch",
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        super().__init__(conv, norm_layer(norm, out_channels), nn.ReLU(inplace=True))


def resize(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize to (H, W) with `align_corners=False`; the map itself if it has that size."""
    if all(_is_same(*sides) for sides in zip(size_of(feature), size, strict=True)):
        return feature
    return F.interpolate(feature, size=tuple(size), mode="bilinear", align_corners=False)


def _is_same(side: int, other: int) -> bool:
    """Whether two sides are equal; where `torch.export` traces symbols, whether they are for all images.

    A plain comparison of symbols holds for the image that is traced. The program would repeat its result.
    """
    if isinstance(side, torch.SymInt) or isinstance(other, torch.SymInt):
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return statically_known_true(side == other)
    return side == other


def enlarge(feature: Tensor, factor: int) -> Tensor:
    """Bilinear resize (B, C, h, w) to (B, C, factor h, factor w); see `resize`."""
    height, width = size_of(feature)
    return resize(feature, (height * factor, width * factor))
