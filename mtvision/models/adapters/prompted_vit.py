"""Task prompts in a plain ViT: TaskPrompter (Ye and Xu, ICLR 2023), section 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block as ViTBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.adapters.prompted import PromptedBackbone, PromptUnit, new_linear, updated
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.declarations import FIXED, Declaration, Declares
from mtvision.models.layers.prompts import PromptLogits


class PromptViTBlock(PromptUnit, Declares):
    """A timm ViT block in which prompts attend to all tokens and to channels.

    A prompt becomes a map of the grid's size (`to_map`). This map is compared with every channel of the
    tokens, window by window. The result is added to the prompt again through `to_prompt`.

    Args:
        block: timm's.
        prompts: how many.
        grid: (h, w) of the tokens.
        windows: g; channels are compared inside g x g windows.
        last: the prompts are not needed afterwards.
    """

    def __init__(self, block: Any, prompts: int, grid: tuple[int, int], windows: int, *, last: bool) -> None:
        super().__init__()
        width = block.norm1.normalized_shape[0]
        self.block, self.count, self.grid, self.windows = block, prompts, grid, windows
        self.to_map = new_linear(width, grid[0] * grid[1])
        self.to_prompt = None if last else new_linear(grid[0] * grid[1], width)

    def declaration(self) -> Declaration:
        """A map has one number per position, and a prompt gates the channels of a head together."""
        return Declaration(writes={"to_map": FIXED}, multiple=self.block.attn.head_dim)

    def forward(self, state: Tensor) -> Tensor:
        """State (B, T + h·w, C) after the block."""
        return self._run(state, reads=False)[0]

    def read(self, state: Tensor, logits: PromptLogits | None) -> tuple[Tensor, PromptLogits]:
        """The state, and this block's logits."""
        del logits
        state, found = self._run(state, reads=True)
        assert found is not None
        return state, found

    def _run(self, state: Tensor, *, reads: bool) -> tuple[Tensor, PromptLogits | None]:
        block, count = self.block, self.count
        normed = block.norm1(state)
        change, query, key = self._attend(normed)
        logits = self._logits(normed, query, key) if reads else None
        if self.to_prompt is not None:
            channel = self.to_prompt(self.to_map(normed[:, :count]))
            change = torch.cat([change[:, :count] + channel, change[:, count:]], dim=1)
        state = updated(block.drop_path1, count, state, block.ls1(change))
        change = block.ls2(block.mlp(block.norm2(state)))
        return updated(block.drop_path2, count, state, change), logits

    def _attend(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention's output, its queries and its keys."""
        attn = self.block.attn
        batch, length, _ = tokens.shape
        query, key, value = (
            attn.qkv(tokens).reshape(batch, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        )
        query, key = attn.q_norm(query), attn.k_norm(key)
        rate = attn.attn_drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        out = attn.proj_drop(attn.proj(mixed.transpose(1, 2).reshape(batch, length, -1)))
        return out, query, key

    def _logits(self, normed: Tensor, query: Tensor, key: Tensor) -> PromptLogits:
        count, g, (height, width) = self.count, self.windows, self.grid
        raw = query[:, :, :count] @ key.transpose(-2, -1)
        pixels = raw[..., count:].reshape(*raw.shape[:3], height, width)
        batch, window = normed.shape[0], (g, height // g, g, width // g)
        drawn = self.to_map(normed[:, :count]).reshape(batch, count, *window)
        tokens = normed[:, count:].reshape(batch, *window, -1)
        channels = torch.einsum("btgihj,bgihjc->btcgh", drawn, tokens)
        return PromptLogits(pixels, channels, raw[..., :count])


class PromptedViT(PromptedBackbone):
    """A timm ViT without class token, with prompts before the patches.

    Args:
        backbone: a `TimmBackbone` of a plain ViT; its blocks are replaced in place.
        prompts: names.
        windows: see `PromptViTBlock`.

    Raises:
        ValueError: the grid does not divide into `windows` x `windows`.
        TypeError: not a plain ViT.
    """

    def __init__(self, backbone: TimmBackbone, prompts: Sequence[str], windows: int) -> None:
        model = backbone.model
        height, width = (int(side) for side in model.patch_embed.grid_size)
        size = tuple(
            side * patch for side, patch in zip((height, width), model.patch_embed.patch_size, strict=True)
        )
        if windows < 1 or height % windows or width % windows:
            raise ValueError(
                f"TaskPrompts: a grid of {height}x{width} does not divide into {windows}x{windows} windows; "
                "choose `windows` so that it does."
            )
        super().__init__(backbone, prompts, model.embed_dim, (int(size[0]), int(size[1])))
        last = len(model.blocks) - 1
        for index, block in enumerate(model.blocks):
            model.blocks[index] = PromptViTBlock(
                _plain(block), len(self.prompts), (height, width), windows, last=index == last
            )
        self.exits = backbone.exits
        self.reads = frozenset(self.exits)
        self.measure()

    def first_tokens(self, image: Tensor) -> Tensor:
        """Patches with position embedding; prompts get none."""
        return self.inner.stem(image)

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """The patches as a map, the last level normed."""
        return self.inner.to_map(state[:, len(self.prompts) :], level, size)


def takes(backbone: Backbone) -> TypeGuard[TimmBackbone]:
    """Whether prompts can be put into this backbone as into a ViT."""
    inside = isinstance(backbone, TimmBackbone) and isinstance(backbone.model, VisionTransformer)
    return inside and bool(backbone.exits)


def _plain(block: nn.Module) -> nn.Module:
    attn = dict(block.named_children()).get("attn")
    if type(block) is not ViTBlock or type(attn) is not Attention or attn.gate is not None:
        raise TypeError(
            f"TaskPrompts: a ViT of {type(block).__name__} with {type(attn).__name__} is not supported; use "
            "a plain one (vit_*_patch16_*)."
        )
    return block
