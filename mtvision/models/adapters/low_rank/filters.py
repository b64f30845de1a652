"""TADFormer: the inner values of a shared low-rank update pass a small spatial filter of each task."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.pyramid import size_of
from mtvision.models.adapters.low_rank.delta import Delta, Matrices
from mtvision.models.adapters.low_rank.linear import UpdatedLinear
from mtvision.models.adapters.token_grid import TokenGrid
from mtvision.models.layers.conditioned import image_size


class SpatialFilter(nn.Module):
    """Base of depth-wise filters of maps (B, C, h, w).

    Args:
        channels: C.
        kernel: side, odd.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.channels, self.kernel = channels, kernel
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Make the parameters."""


class FixedFilter(SpatialFilter):
    """One learned filter, as in TADFormer's released network."""

    def build(self) -> None:
        """A depth-wise convolution."""
        self.conv2d = nn.Conv2d(
            self.channels, self.channels, self.kernel, padding=self.kernel // 2, groups=self.channels
        )

    def forward(self, x: Tensor) -> Tensor:
        """The filtered map."""
        filtered: Tensor = self.conv2d(x)
        return filtered


class DynamicFilter(SpatialFilter):
    """A filter that is made from the mean of the map, and is normalised per channel.

    This is the `DTF` of the released code, which its network does not build.
    """

    def build(self) -> None:
        """The generator, and scale and shift of the normalised weights."""
        size = self.channels * self.kernel**2
        self.conv = nn.Conv2d(self.channels, size, 1)
        self.std = nn.Parameter(torch.randn(size) * math.sqrt(2) / self.kernel)
        self.mean = nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        """The map, filtered by a kernel of each image."""
        images, side = x.shape[0], self.kernel
        made = self.conv(x.mean(dim=(2, 3), keepdim=True)).view(images, self.channels, side**2)
        spread, mean = torch.std_mean(made, dim=2, keepdim=True)
        made = ((made - mean) / (spread + 1e-10)).flatten(1) * self.std + self.mean
        weight = made.view(images * self.channels, 1, side, side).to(x.dtype)
        flat = x.reshape(1, images * self.channels, *size_of(x))
        return F.conv2d(flat, weight, padding=side // 2, groups=images * self.channels).view(x.shape)


class Filtered(Delta):
    """B·filter(A·x)·scale with the layer's shared A and B; `filter` belongs to one task.

    Args:
        filters: of maps with as many channels as A has rows.
        grid: where tokens lie; None = `x` has square windows.
    """

    def __init__(self, filters: SpatialFilter, grid: TokenGrid | None) -> None:
        super().__init__()
        self.filter, self.grid = filters, grid

    def forward(self, x: Tensor, frozen: Tensor, layer: nn.Linear) -> Tensor:
        """The update (B, N, out). Tokens of no patch are not filtered."""
        del frozen
        shared = cast(Matrices, cast(UpdatedLinear, layer).shared)
        inner = F.linear(shared.dropout(x), shared.A)
        prefix = 0 if self.grid is None else self.grid.prefix
        height, width = self._sides(x)
        patches = inner[:, prefix:].reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2)
        filtered = self.filter(patches).permute(0, 2, 3, 1).reshape(inner[:, prefix:].shape)
        return F.linear(torch.cat([inner[:, :prefix], filtered], dim=1), shared.B) * shared.scale

    def _sides(self, x: Tensor) -> tuple[int, int]:
        if self.grid is not None:
            return self.grid.sides(image_size())
        side = math.isqrt(x.shape[1])
        return side, side
