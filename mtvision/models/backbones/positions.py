"""Blocks of timm that need to know where every token lies, and states that tell them.

timm computes rotary embeddings and relative biases once per image and hands them to each block. A block of
this suite gets nothing but the state, so the state keeps the grid of patches, see `packed`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.models.beit import Attention, gen_relative_position_index
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.declarations import Declaration, Declares
from mtvision.models.declarations.timm_vits import scaled_block, separate_biases

Grid = tuple[int, int]
"""Patches of an image, (height, width)."""


def packed(tokens: Tensor, prefix: int, grid: Grid) -> Tensor:
    """Tokens as a map whose shape tells the grid.

    Args:
        tokens: (B, prefix + height * width, C).
        prefix: class and register tokens in front.
        grid: (height, width).

    Returns:
        (B, prefix + height, width, C). Row i < prefix repeats prefix token i.
    """
    height, width = grid
    front = tokens[:, :prefix, None].expand(-1, -1, width, -1)
    return torch.cat([front, tokens[:, prefix:].reshape(tokens.shape[0], height, width, -1)], dim=1)


def unpacked(state: Tensor, prefix: int) -> tuple[Tensor, Grid]:
    """Tokens (B, prefix + height * width, C) and grid of what `packed` returned."""
    tokens = torch.cat([state[:, :prefix, 0], state[:, prefix:].flatten(1, 2)], dim=1)
    return tokens, (state.shape[1] - prefix, state.shape[2])


class PositionedBlock(nn.Module, Declares):
    """timm's block that reads and writes packed states; names of its parameters stay.

    Args:
        block: timm's, whose layers it takes over.
        prefix: class and register tokens.
    """

    def __init__(self, block: nn.Module, prefix: int) -> None:
        super().__init__()
        self.__dict__.update(block.__dict__)
        self.run, self.prefix = type(block).forward, prefix

    def declaration(self) -> Declaration:
        """Slimmed as timm's block."""
        return scaled_block(self)

    def positions(self, grid: Grid) -> dict[str, Tensor]:
        """What timm's block gets besides the tokens."""
        raise NotImplementedError

    def forward(self, state: Tensor) -> Tensor:
        """(B, prefix + height, width, C) to the same shape."""
        tokens, grid = unpacked(state, self.prefix)
        return packed(self.run(self, tokens, **self.positions(grid)), self.prefix, grid)


class RotaryBlock(PositionedBlock):
    """A block with rotary position embeddings (EVA-02, DINOv3, PE).

    Args:
        block: timm's.
        prefix: class and register tokens, which are not rotated.
        rope: the model's embedding; copied, so that a block works without its model.
    """

    def __init__(self, block: nn.Module, prefix: int, rope: Any) -> None:
        super().__init__(block, prefix)
        self.rope = copy.deepcopy(rope)

    def positions(self, grid: Grid) -> dict[str, Tensor]:
        """Sines and cosines, (height * width, 2 * channels of a head)."""
        return {"rope": self.rope.get_embed(shape=grid)}


class RelativeBlock(PositionedBlock):
    """BEiT's block: a bias for every pair of positions, in a table that each block learns."""

    def __init__(self, block: Any, prefix: int) -> None:
        super().__init__(block, prefix)
        self.attn = RelativeAttention(block.attn)

    def positions(self, grid: Grid) -> dict[str, Tensor]:
        """The bias of all pairs of tokens, (1, heads, tokens, tokens)."""
        return {"shared_rel_pos_bias": self.attn.bias(grid)}


class RelativeAttention(Attention, Declares):
    """BEiT's attention, whose bias comes from its block, at the grid of the image.

    Args:
        attention: timm's, whose layers, buffers and options it takes over.
    """

    window_size: Grid

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(attention.__dict__)

    def declaration(self) -> Declaration:
        """Slimmed as timm's."""
        return separate_biases(self)

    def bias(self, grid: Grid) -> Tensor:
        """timm's bias at the stored grid; at another one, of the table that bicubic resampling gives."""
        if grid == tuple(self.window_size):
            own: Tensor = super()._get_rel_pos_bias()
            return own
        height, width = grid
        table = _resampled(self.relative_position_bias_table, self.window_size, grid)
        index = gen_relative_position_index(grid, device=table.device)
        count = height * width + 1
        return table[index.reshape(-1)].view(1, count, count, -1).permute(0, 3, 1, 2)

    def _get_rel_pos_bias(self) -> Tensor:
        """Nothing: the block has handed over the bias already."""
        return self.relative_position_bias_table.new_zeros(())


def _resampled(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Biases of offsets for another grid; the last three, of the class token, stay.

    Args:
        table: ((2 * height - 1) * (2 * width - 1) + 3, heads).
        old: grid of the table.
        new: grid of the result.
    """
    sides, wanted = ([2 * side - 1 for side in grid] for grid in (old, new))
    offsets = table[:-3].T.reshape(1, -1, *sides)
    resized = F.interpolate(offsets, size=wanted, mode="bicubic", align_corners=False)
    return torch.cat([resized.flatten(2)[0].T, table[-3:]])
