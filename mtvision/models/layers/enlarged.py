"""A 3x3 convolution of enlarged maps, computed at the size that they had before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.pyramid import size_of
from mtvision.models.layers.conv import resize

_GAINS = 8
"""Pixels of the result over those of a map from which its own size is the faster one (docs/speed.md)."""
_LEAST = 10**8
"""Multiplications of a convolution below which there is little to gain."""


def convolved(
    conv: nn.Module,
    maps: Sequence[Tensor],
    size: tuple[int, int],
    mixed: Sequence[nn.Module | None] | None = None,
) -> Tensor:
    """`conv` of the sum of maps that are resized bilinearly to (H, W); the same numbers to rounding.

    Resizing and convolving are linear. A product with the nine matrices of the kernel at a map's own size
    comes first. Its results are then resized, each shifted by its place in the kernel. For a map enlarged by
    4 that takes a thirteenth of the multiplications of the convolution. Where one map is nearly as large as
    the result, the kernel is multiplied by the map's 1x1 convolution first, if that reads fewer channels.

    It is done on CPUs, for 3x3 convolutions of stride 1 with 10^8 multiplications or more. All
    else, and what is compiled or exported, takes the plain way.

    Args:
        conv: a convolution that keeps the size.
        maps: (B, C, h, w), each of its own size.
        size: (H, W).
        mixed: a 1x1 convolution of each map before it is resized, or None.

    Returns:
        (B, out_channels, H, W).
    """
    layers = list(mixed or [None] * len(maps))
    if not _is_plain(conv, 3):  # first of all, because sides are symbols where a program is traced
        return _plainly(conv, maps, layers, size)
    small = [_GAINS * item.shape[-2] * item.shape[-1] <= size[0] * size[1] for item in maps]
    if not _gains(conv, maps, layers, small, size):
        return _plainly(conv, maps, layers, size)
    # One matrix (3 rows x channels, C) for each column of the kernel.
    turned = conv.weight.permute(3, 0, 2, 1).reshape(3, -1, conv.in_channels)
    bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    out = bias[:, None, None].expand(len(maps[0]), -1, *size)
    for item, layer, is_small in zip(maps, layers, small, strict=True):
        if not is_small:
            assert isinstance(layer, nn.Conv2d)
            out = _joined(turned, layer, item, size, bias)
    for item, layer, is_small in zip(maps, layers, small, strict=True):
        if is_small:
            out = _added_at_own_size(out, turned, item if layer is None else layer(item), size)
    return out


def _plainly(
    conv: nn.Module, maps: Sequence[Tensor], layers: Sequence[nn.Module | None], size: tuple[int, int]
) -> Tensor:
    """The convolution of the sum of the enlarged maps."""
    total: Tensor | None = None
    for item, layer in zip(maps, layers, strict=True):
        resized = resize(item if layer is None else layer(item), size)
        total = resized if total is None else total + resized
    found: Tensor = conv(total)
    return found


def _added_at_own_size(out: Tensor, kernel: Tensor, feature: Tensor, size: tuple[int, int]) -> Tensor:
    """`out` and the convolution of an enlarged map (B, C, h, w), without bias."""
    height, width = size_of(feature)
    rows, columns = (
        _shifted(before, after, feature) for before, after in zip((height, width), size, strict=True)
    )
    tokens = feature.flatten(2)
    wide: Tensor | None = None
    for matrix, column in zip(kernel, columns, strict=True):
        part = torch.unflatten(matrix @ tokens, 2, (height, width)) @ column.T
        wide = part if wide is None else wide + part
    assert wide is not None
    # Rows of the kernel and of the map together: (H, 3 h) @ (3 h, W) for every channel.
    down = rows.transpose(0, 1).flatten(1).expand(out.shape[0] * out.shape[1], -1, -1)
    wide = torch.unflatten(wide, 1, (-1, 3)).flatten(2, 3).flatten(0, 1)
    return torch.baddbmm(out.flatten(0, 1), down, wide).view(out.shape)


def _joined(kernel: Tensor, layer: nn.Conv2d, feature: Tensor, size: tuple[int, int], bias: Tensor) -> Tensor:
    """The convolution of `layer`'s enlarged map, as one convolution of what `layer` reads."""
    read = layer.weight.flatten(1)
    fine = resize(feature, size)
    if layer.bias is not None:  # a channel of ones, which ends at the border as the map does
        read = torch.cat([read, layer.bias[:, None]], dim=1)
        fine = torch.cat([fine, fine.new_ones(()).expand(len(fine), 1, *size)], dim=1)
    weight = torch.unflatten(kernel @ read, 1, (-1, 3)).permute(1, 3, 2, 0)
    return F.conv2d(fine, weight, bias, padding=1)


def _shifted(before: int, after: int, like: Tensor) -> Tensor:
    """Weights (3, after, before) of a resized line at the pixel before, at, and after every pixel."""
    eye = torch.eye(before, dtype=torch.float64)[None]
    line = F.interpolate(eye, size=after, mode="linear", align_corners=False)[0].T
    padded = F.pad(line, (0, 0, 1, 1))
    return torch.stack([padded[place : place + after] for place in range(3)]).to(like)


def _gains(
    conv: nn.Conv2d,
    maps: Sequence[Tensor],
    layers: Sequence[nn.Module | None],
    small: Sequence[bool],
    size: tuple[int, int],
) -> bool:
    """Whether all maps are small, but for one whose 1x1 convolution reads fewer channels than it writes."""
    if any(item.device.type != "cpu" for item in maps):
        return False
    if len(maps[0]) * size[0] * size[1] * sum(item.numel() for item in conv.parameters()) < _LEAST:
        return False
    large = [layer for layer, is_small in zip(layers, small, strict=True) if not is_small]
    if len(large) > 1:
        return False
    return all(_is_plain(item, 1) and 2 * item.in_channels <= item.out_channels for item in large)


def _is_plain(conv: nn.Module | None, kernel: int) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution that keeps the size and nothing else, and may be taken apart."""
    if type(conv) is not nn.Conv2d or torch.compiler.is_compiling():
        return False
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or "forward" in vars(conv):
        return False
    sides = (conv.kernel_size, conv.padding) == ((kernel, kernel), (kernel // 2, kernel // 2))
    single = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
    return sides and single and conv.padding_mode == "zeros"
