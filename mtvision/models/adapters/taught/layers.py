"""SAK's modules: one step of a teacher's path, and the router that mixes representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.pyramid import size_of
from mtvision.models.declarations import Declaration, Declares

NoiseOf = Literal["pixel", "image", "none"]
LEAST_DEVIATION = 1e-2


class PathStep(nn.Module, Declares):
    """x + scale · Up(GELU(Down(x))), one step of a teacher's path.

    Args:
        features: C of x.
        reduction: C over the inner width.
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, features // reduction)
        self.down, self.up = nn.Linear(features, hidden), nn.Linear(hidden, features)
        self.scale = nn.Parameter(torch.ones(1))
        truncated(self)

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim="a teacher's path is compared with all channels of its teacher")

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        change: Tensor = self.up(F.gelu(self.down(x)))
        return x + change * self.scale.to(change.dtype)


class RepresentationRouter(nn.Module, Declares):
    """Mixture of representations: a sum of maps with weights that sum to 1, for one task and level.

    Scores come from the first map, whose pixels pass two layers and are then averaged over the image.

    Args:
        channels: C of the maps.
        count: how many maps there are.
        noise: whether training draws noise for each pixel or for each image; `none` learns no deviation.
    """

    def __init__(self, channels: int, count: int, noise: NoiseOf) -> None:
        super().__init__()
        self.count, self.noise = count, noise
        outputs = count if noise == "none" else 2 * count
        self.layers = nn.Sequential(
            nn.Linear(channels, channels // 2),
            nn.LayerNorm(channels // 2),
            nn.GELU(),
            nn.Linear(channels // 2, outputs),
        )
        truncated(self)

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim="a router mixes maps of full width")

    def weights(self, feature: Tensor, noise: Tensor | None = None) -> Tensor:
        """Weights (B, count, 1, 1), or (B, count, h, w) with noise for each pixel.

        Args:
            feature: the first map (B, C, h, w).
            noise: standard normal values of the result's shape; by default training draws them.
        """
        scores: Tensor = self.layers(feature.flatten(2).transpose(1, 2)).mean(dim=1)
        if self.noise != "none":
            scores, deviation = scores.chunk(2, dim=1)
            if noise is None and self.training:
                size = size_of(feature) if self.noise == "pixel" else (1, 1)
                noise = torch.randn(*scores.shape, *size, dtype=scores.dtype, device=scores.device)
        scores = scores[..., None, None]
        if noise is not None:
            scores = scores + noise * (F.softplus(deviation) + LEAST_DEVIATION)[..., None, None]
        return scores.softmax(dim=1)

    def forward(self, maps: Sequence[Tensor], noise: Tensor | None = None) -> Tensor:
        """The mixture (B, C, h, w) of `count` maps; `noise` as for `weights`."""
        shares = self.weights(maps[0], noise)
        mixed = [share[:, None] * item for share, item in zip(shares.unbind(1), maps, strict=True)]
        return sum(mixed[1:], mixed[0]).to(maps[0].dtype)


def truncated(module: nn.Module) -> None:
    """Weights of linear layers from a truncated normal distribution of deviation 0.02, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
