"""Learned upsampling of maps whose channels come last."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from mtvision.models.declarations import Channels, Declaration, Declares


class PatchExpand(nn.Module, Declares):
    """A linear layer makes the pixels of a `factor` x `factor` patch, which are then laid out and normed.

    The wide channel axis is ordered (row in patch, column in patch, channel), as in Swin-Unet and MTMamba.

    Args:
        in_channels: channels read.
        out_channels: channels written.
        factor: how many times larger the map becomes.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(in_channels, factor * factor * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels, eps=1e-5)

    def declaration(self) -> Declaration:
        """Every pixel of a patch has a run of channels."""
        pixel = Channels(self.norm.normalized_shape[0])
        return Declaration(writes={"expand": (pixel,) * self.factor**2})

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, in_channels) to (B, factor h, factor w, out_channels)."""
        batch, height, width, _ = x.shape
        f = self.factor
        patches = self.expand(x).reshape(batch, height, width, f, f, -1).permute(0, 1, 3, 2, 4, 5)
        return cast(Tensor, self.norm(patches.reshape(batch, height * f, width * f, -1)))
