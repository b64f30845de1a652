"""A gate that reads a whole map: how much of each expert a task takes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mtvision.core.pyramid import size_of
from mtvision.models.declarations import FIXED, Declaration, Declares, Part


class MapGate(nn.Module, Declares):
    """Scores of some choices from one feature map (MLoRE, CVPR 2024, its authors' code).

    Two summaries of the map are joined: the mean over positions of `1x1 - LayerNorm - GELU - 1x1`, and
    `LayerNorm - GELU - 1x1` of a weighted sum over positions, whose weights are learned.

    Args:
        channels: of the map.
        choices: how many scores.
        grid: (height, width) of the map. The learned sum has one weight a position, so a gate made for one
            grid cannot read another. None sums with equal weights instead, at any size (not in the paper).
    """

    def __init__(self, channels: int, choices: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        inner = max(channels // 4, 1)
        self.grid = grid
        self.local = nn.Conv2d(channels, inner, 1)
        self.local_norm = nn.LayerNorm(inner)
        self.local_out = nn.Conv2d(inner, inner, 1)
        self.pool = None if grid is None else nn.Linear(grid[0] * grid[1], 1)
        self.pool_norm = nn.LayerNorm(channels)
        self.pool_out = nn.Conv2d(channels, inner, 1)
        self.scores = nn.Conv2d(2 * inner, choices, 1)
        if self.pool is not None:
            nn.init.trunc_normal_(self.pool.weight, std=0.02)
            nn.init.zeros_(self.pool.bias)

    def declaration(self) -> Declaration:
        """Scores stay whole; `pool` reads positions, not channels."""
        pool: dict[str, Part] = {} if self.pool is None else {"pool": FIXED}
        return Declaration(writes={"scores": FIXED, **pool}, reads=pool)

    def forward(self, feature: Tensor) -> Tensor:
        """Scores (B, choices) of a map (B, C, h, w).

        Raises:
            ValueError: the gate was made for another grid.
        """
        local = self.local_norm(self.local(feature).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        local = self.local_out(nn.functional.gelu(local)).mean(dim=(2, 3), keepdim=True)
        pooled = nn.functional.gelu(self.pool_norm(self._pooled(feature)))[..., None, None]
        scores = self.scores(torch.cat([local, self.pool_out(pooled)], dim=1))
        return cast(Tensor, scores.flatten(1))

    def _pooled(self, feature: Tensor) -> Tensor:
        if self.pool is None:
            return feature.mean(dim=(2, 3))
        size = size_of(feature)
        if size != self.grid:
            raise ValueError(
                f"decoder: its gates were made for maps of {self.grid} (height, width) and got {size}. "
                "Set decoder.grid to (image height / stride, image width / stride), or to None for gates "
                "that take any size."
            )
        return cast(Tensor, self.pool(feature.flatten(2)).flatten(1))
