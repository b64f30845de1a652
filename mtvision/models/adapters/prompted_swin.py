"""Task prompts in a Swin Transformer: TaskPrompter (Ye and Xu, ICLR 2023), its Cityscapes-3D model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import torch
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.pyramid import ceil_div
from mtvision.models.adapters.prompted import PromptedBackbone, PromptUnit, new_linear, updated
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.declarations import Declaration
from mtvision.models.layers.prompts import PromptLogits


class PromptSwinBlock(PromptUnit):
    """A timm Swin block whose windows all hold the prompts; a prompt's update is the mean over windows.

    Prompts also attend to channels. Every channel of the attention's output is projected to `width` numbers,
    a key and a value, so the weights belong to one grid. Position bias and shift mask act on pixels alone.

    Args:
        block: timm's.
        prompts: how many.
        width: of channel attention.
        last: the prompts are not needed afterwards.
    """

    def __init__(self, block: Any, prompts: int, width: int, *, last: bool) -> None:
        super().__init__()
        self.block, self.count = block, prompts
        self.grid = (int(block.input_resolution[0]), int(block.input_resolution[1]))
        channels = int(block.dim)
        self.to_channel = new_linear(channels, width)
        self.query = new_linear(width, width)
        self.key_value = new_linear(self.grid[0] * self.grid[1], 2 * width)
        self.mix = None if last else new_linear(width, width)
        self.to_prompt = None if last else new_linear(width, channels)

    def forward(self, state: Tensor) -> Tensor:
        """State (B, T + h·w, C) after the block."""
        return self.read(state, None)[0]

    def read(self, state: Tensor, logits: PromptLogits | None) -> tuple[Tensor, PromptLogits]:
        """The state, and this block's logits."""
        del logits
        block, count = self.block, self.count
        prompts, pixels, spatial = self._attend(block.norm1(state))
        key, value = self.key_value(pixels.transpose(1, 2)).chunk(2, dim=-1)
        scores = self.query(self.to_channel(state[:, :count])) @ key.transpose(1, 2)
        if self.mix is not None and self.to_prompt is not None:
            weights = (scores * key.shape[-1] ** -0.5).softmax(dim=-1)
            prompts = prompts + self.to_prompt(self.mix(weights @ value))
        state = updated(block.drop_path1, count, state, torch.cat([prompts, pixels], dim=1))
        state = updated(block.drop_path2, count, state, block.mlp(block.norm2(state)))
        return state, PromptLogits(spatial, scores[..., None, None])

    def _attend(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Updates of prompts and pixels, and raw logits (B, heads, T, h, w)."""
        block, attn, count, (height, width) = self.block, self.block.attn, self.count, self.grid
        batch, _, channels = tokens.shape
        window, area = block.window_size, block.window_area
        bottom, right = (-side % edge for side, edge in zip(self.grid, window, strict=True))
        padded, shift = (height + bottom, width + right), tuple(block.shift_size)
        image = F.pad(tokens[:, count:].reshape(batch, height, width, channels), (0, 0, 0, right, 0, bottom))
        image = torch.roll(image, (-shift[0], -shift[1]), (1, 2)) if any(shift) else image
        inside = window_partition(image, window).reshape(batch, -1, area, channels)
        own = attn.qkv(tokens[:, None, :count]).expand(-1, inside.shape[1], -1, -1)
        # The prompts are the same in every window, so they are projected once.
        joined = torch.cat([own, attn.qkv(inside)], dim=2)
        split = joined.reshape(*joined.shape[:3], 3, attn.num_heads, -1).permute(3, 0, 1, 4, 2, 5)
        query, key, value = split[0], split[1], split[2]
        rate = attn.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, self._bias(image), dropout_p=rate)
        out = out.transpose(2, 3).flatten(3)
        prompts = attn.proj_drop(attn.proj(out[:, :, :count].mean(dim=1)))
        after = attn.proj_drop(attn.proj(out[:, :, count:])).reshape(-1, *window, channels)
        raw = (query[..., :count, :] @ key[..., count:, :].transpose(-2, -1)).flatten(2, 3)
        seen = raw.transpose(2, 3).reshape(-1, *window, attn.num_heads * count)
        after, seen = (self._restored(item, padded) for item in (after, seen))
        spatial = seen.permute(0, 3, 1, 2).reshape(batch, attn.num_heads, count, height, width)
        return prompts, after.flatten(1, 2), spatial

    def _restored(self, windows: Tensor, padded: tuple[int, int]) -> Tensor:
        shift = tuple(self.block.shift_size)
        image = window_reverse(windows, self.block.window_size, *padded)
        image = torch.roll(image, shift, (1, 2)) if any(shift) else image
        return image[:, : self.grid[0], : self.grid[1]]

    def _bias(self, image: Tensor) -> Tensor:
        """What is added to scaled scores, (windows or 1, heads, T + area, T + area); 0 for prompts."""
        block = self.block
        bias: Tensor = block.attn._get_rel_pos_bias().reshape(1, -1, block.window_area, block.window_area)
        mask = block.get_attn_mask(image) if block.dynamic_mask else block.attn_mask
        if mask is not None:
            bias = bias + mask[:, None]
        return F.pad(bias, (self.count, 0, self.count, 0)).to(image.dtype)


class PromptMerging(PromptUnit):
    """Patch merging for pixels, prompts and logits.

    Args:
        merging: timm's.
        grid: (h, w) of the pixels read.
        prompts: how many.
        heads: of the block before.
    """

    def __init__(self, merging: Any, grid: tuple[int, int], prompts: int, heads: int) -> None:
        super().__init__()
        self.merging, self.grid, self.count = merging, grid, prompts
        before, after = int(merging.dim), int(merging.out_dim)
        self.prompts = new_linear(before, after, bias=False)
        self.channels = new_linear(before, after, bias=False)
        self.pixels = nn.Conv2d(heads * prompts, heads * prompts, 3, stride=2, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        """State (B, T + h/2·w/2, 2C)."""
        image = state[:, self.count :].reshape(state.shape[0], *self.grid, -1)
        return torch.cat([self.prompts(state[:, : self.count]), self.merging(image).flatten(1, 2)], dim=1)

    def read(self, state: Tensor, logits: PromptLogits | None) -> tuple[Tensor, PromptLogits]:
        """The state, and the logits of the block before on the coarser grid."""
        if logits is None:
            raise ValueError("PromptMerging.read: needs the logits of the block before.")
        pixels = self.pixels(logits.pixels.flatten(1, 2))
        channels = self.channels(logits.channels.transpose(2, -1)).transpose(2, -1)
        shape = logits.pixels.shape[1:3]
        return self(state), PromptLogits(pixels.reshape(state.shape[0], *shape, *pixels.shape[2:]), channels)


class PromptedSwin(PromptedBackbone):
    """A timm Swin with prompts. Levels are read after the merging that ends a stage; the last one is normed.

    Args:
        backbone: a `SwinBackbone` with `level_norms=False`; its blocks are replaced in place.
        prompts: names.
        width: of channel attention.
        image_scale: see `PromptedBackbone`.
    """

    def __init__(
        self, backbone: TimmBackbone, prompts: Sequence[str], width: int, image_scale: float
    ) -> None:
        model = backbone.model
        size = tuple(
            int(side) * int(patch)
            for side, patch in zip(model.patch_embed.grid_size, model.patch_embed.patch_size, strict=True)
        )
        super().__init__(backbone, prompts, model.embed_dim, (size[0], size[1]), image_scale)
        names, count = backbone.block_names(), len(self.prompts)
        self._grids: list[tuple[int, int]] = []
        exits, reads, before = [], set(), names[0]
        for position, name in enumerate(names, start=1):
            module: Any = backbone.get_submodule(name)
            unit: PromptUnit
            if isinstance(module, PatchMerging):
                previous: Any = backbone.get_submodule(before)
                unit = PromptMerging(module, previous.grid, count, previous.block.attn.num_heads)
                self._grids.append((ceil_div(previous.grid[0], 2), ceil_div(previous.grid[1], 2)))
                exits.append(position)
                reads |= {position - 1, position}
            else:
                unit = PromptSwinBlock(module, count, width, last=name == names[-1])
            backbone.set_submodule(name, unit)
            before = name
        final: Any = backbone.get_submodule(names[-1])
        self._grids.append(final.grid)
        self.exits, self.reads = (*exits, len(names)), frozenset({*reads, len(names)})
        self.norm = nn.LayerNorm(final.block.dim)
        self.measure()

    def declaration(self) -> Declaration:
        """Not slimmed: see `docs/decoders/taskprompter.md`."""
        reason = (
            "a level is read after the patch merging that ends a stage, and the scores of that stage's heads "
            "gate equal groups of the merged channels, which belong to the width of the next stage. With "
            "other widths the groups would not lie where they lay; a prompted ViT can be slimmed"
        )
        return replace(super().declaration(), cannot_slim=reason)

    def first_tokens(self, image: Tensor) -> Tensor:
        """Patches."""
        return self.inner.stem(image).flatten(1, 2)

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """The pixels as a map."""
        del size
        pixels = state[:, len(self.prompts) :]
        pixels = self.norm(pixels) if level == len(self.exits) - 1 else pixels
        return pixels.transpose(1, 2).reshape(state.shape[0], -1, *self._grids[level])


def takes(backbone: Backbone) -> TypeGuard[TimmBackbone]:
    """Whether prompts can be put into this backbone as into a Swin."""
    blocks = [item for item in backbone.modules() if isinstance(item, SwinTransformerBlock)]
    return isinstance(backbone, TimmBackbone) and isinstance(backbone.model, SwinTransformer) and bool(blocks)
