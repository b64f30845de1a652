"""Families of timm's architectures with one stride: plain ViTs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from mtvision.models.backbones.family import ChannelsLastFamily, Family, call_qkv
from mtvision.models.backbones.positions import RelativeBlock, RotaryBlock, packed


class SAMFamily(ChannelsLastFamily):
    """SAM's ViT: NHWC states, blocks with windows or without; the neck behind the last block is left out."""

    classes = (VisionTransformerSAM,)
    example = "samvit_base_patch16"
    plain = True

    def refusal(self, model: Any) -> str:
        """Rotary embeddings are stored for one size."""
        return "" if model.rope_global is None else "its rotary embeddings are made for one size"

    def size_multiple(self, model: Any) -> int:
        """The patch size."""
        return math.lcm(*model.patch_embed.patch_size)

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, resampled to the image's grid, (B, h, w, C)."""
        state: Tensor = model.patch_embed(image)
        if model.pos_embed is not None:
            state = state + resample_abs_pos_embed_nhwc(model.pos_embed, state.shape[1:3])
        normed: Tensor = model.norm_pre(model.patch_drop(model.pos_drop(state)))
        return normed

    def units(self, model: Any) -> list[list[str]]:
        """One level after each transformer block."""
        return [[f"blocks.{index}"] for index in range(len(model.blocks))]


class ViTFamily(Family):
    """Plain ViT, DeiT, MAE, DINOv2, CLIP, SigLIP, RADIO: tokens (B, prefix + h*w, C), one stride.

    Blocks that need the grid of the patches read and write `packed` states instead.
    """

    classes: tuple[type[nn.Module], ...] = (VisionTransformer,)
    example = "vit_small_patch14_dinov2"
    plain = True
    final_norm = True

    def size_multiple(self, model: Any) -> int:
        """The patch size."""
        return math.lcm(*self._patch(model))

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, resampled to the image's grid."""
        tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(image))))
        return tokens

    def units(self, model: Any) -> list[list[str]]:
        """One level after each transformer block."""
        return [[f"blocks.{index}"] for index in range(len(model.blocks))]

    def to_map(self, model: Any, state: Tensor, size: tuple[int, int]) -> Tensor:
        """Class, register and distillation tokens are dropped."""
        if state.ndim == 4:
            return state[:, model.num_prefix_tokens :].permute(0, 3, 1, 2)
        height, width = self._grid(model, size)
        patches = state[:, model.num_prefix_tokens :]
        feature: Tensor = patches.transpose(1, 2).reshape(state.shape[0], -1, height, width)
        return feature

    def _patch(self, model: Any) -> tuple[int, int]:
        patch: tuple[int, int] = model.patch_embed.patch_size
        return patch

    def _grid(self, model: Any, size: Sequence[int]) -> tuple[int, int]:
        height, width = (side // patch for side, patch in zip(size, self._patch(model), strict=True))
        return height, width

    def _packed(self, model: Any, tokens: Tensor, image: Tensor) -> Tensor:
        """The tokens in the form that the first block reads."""
        if not isinstance(model.blocks[0], RotaryBlock | RelativeBlock):
            return tokens
        return packed(tokens, model.num_prefix_tokens, self._grid(model, image.shape[2:]))


class EvaFamily(ViTFamily):
    """EVA, EVA-02, DINOv3, PE: rotary embeddings of the image's grid, given to every block."""

    classes: tuple[type[nn.Module], ...] = (Eva,)
    example = "vit_small_patch16_dinov3"

    def refusal(self, model: Any) -> str:
        """Blocks get positions of their own, so these may neither be learnt nor drawn for all blocks."""
        if model.rope is None:
            return ""
        if self._learnt(model):
            return "its rotary embeddings are learnt for all blocks together"
        return "its rotary embeddings are augmented for all blocks together" if model.rope.aug_active else ""

    def prepare(self, model: Any) -> None:
        """Give every block the rotary embedding, and let attention call its `qkv`."""
        call_qkv(model.blocks)
        if model.rope is not None:
            for name, block in list(model.blocks.named_children()):
                model.blocks.set_submodule(name, RotaryBlock(block, model.num_prefix_tokens, model.rope))
            model.rope = None

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, resampled to the image's grid."""
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(image))[0])
        return self._packed(model, tokens, image)

    def _learnt(self, model: Any) -> bool:
        return bool(model.rope_mixed)


class NaFlexFamily(EvaFamily):
    """NaFlexViT, with RADIO and SigLIP 2 among its weights: images are whole, so there is no mask."""

    classes = (NaFlexVit,)
    example = "naflexvit_base_patch16_radio_v3"

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, resampled to the image's grid."""
        tokens = model._forward_embeds(image, None, None, None)["patches"]
        return self._packed(model, tokens, image)

    def _learnt(self, model: Any) -> bool:
        return bool(model.rope_is_mixed)

    def _patch(self, model: Any) -> tuple[int, int]:
        patch: tuple[int, int] = model.embeds.patch_size
        return patch


class BeitFamily(ViTFamily):
    """BEiT: relative position biases, resampled to the image's grid in every block."""

    classes = (Beit,)
    example = "beit_base_patch16_224"

    def refusal(self, model: Any) -> str:
        """Blocks learn biases of their own, or none."""
        return "" if model.rel_pos_bias is None else "its blocks share one table of position biases"

    def prepare(self, model: Any) -> None:
        """Take images of any size, and let attention call its `qkv`."""
        call_qkv(model.blocks)
        model.patch_embed.strict_img_size = False
        for name, block in list(model.blocks.named_children()):
            if block.attn.window_size is not None:
                model.blocks.set_submodule(name, RelativeBlock(block, model.num_prefix_tokens))

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding, class token and position embedding, resampled to the image's grid."""
        patches = model.patch_embed(image)
        tokens = torch.cat([model.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        if model.pos_embed is not None:
            grid, own = list(self._grid(model, image.shape[2:])), list(model.patch_embed.grid_size)
            tokens = tokens + resample_abs_pos_embed(model.pos_embed, grid, own, model.num_prefix_tokens)
        return self._packed(model, model.pos_drop(tokens), image)
