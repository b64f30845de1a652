"""How timm's encoders with several strides slim: ConvNeXt, Hiera, Swin v2, MambaOut."""

from __future__ import annotations

import math
from typing import Any

from timm.layers.grn import GlobalResponseNorm
from timm.models.convnext import ConvNeXtBlock
from timm.models.hiera import Hiera, MaskUnitAttention
from timm.models.hieradet_sam2 import HieraDet, MultiScaleAttention
from timm.models.mambaout import GatedConvBlock
from timm.models.swin_transformer_v2 import WindowAttention

from mtvision.architecture.widths import DIVISOR, FIXED
from mtvision.models.declarations.declaration import READS, Channels, Declaration, Layer, Length, declare


@declare(ConvNeXtBlock)
def convnext_block(module: Any) -> Declaration:
    """One factor for every channel."""
    return Declaration(
        tensors={} if module.gamma is None else {"gamma": {0: Channels(int(module.gamma.shape[0]))}}
    )


@declare(GlobalResponseNorm)
def global_response_norm(layer: Any) -> Declaration:
    """Gain and shift of the channels that arrive; their mean response is that of the active ones."""
    return Declaration(
        layer=Layer(int(layer.channel_dim), len(layer.weight)),
        tensors={"weight": {0: READS}, "bias": {0: READS}},
    )


@declare(GatedConvBlock)
def gated_conv_block(module: Any) -> Declaration:
    """MambaOut's block."""
    del module
    return Declaration(cannot_slim="its gate is split at channels that are numbers in a tuple")


@declare(Hiera)
def hiera(module: Any) -> Declaration:
    """Position embeddings of tokens, or maps of the image and of a window."""
    width = Channels(int(module.pos_embed.shape[2 if module.pos_embed.ndim == 3 else 1]))
    axis = 2 if module.pos_embed.ndim == 3 else 1
    return Declaration(tensors={"pos_embed": {axis: width}, "pos_embed_win": {1: width}})


@declare(HieraDet)
def hiera_of_sam_2(module: Any) -> Declaration:
    """Position embeddings are maps, of the image and of a window."""
    width = Channels(int(module.pos_embed.shape[1]))
    return Declaration(tensors={"pos_embed": {1: width}, "pos_embed_window": {1: width}})


@declare(MaskUnitAttention)
def mask_unit_attention(module: Any) -> Declaration:
    """Whole heads are left out."""
    size = int(module.head_dim)
    heads = Channels(int(module.dim_out), multiple=size)
    return Declaration(
        numbers={"heads": heads.per(size), "dim_out": heads},
        writes={"qkv": (heads,) * 3},
        reads={"proj": (heads,)},
    )


@declare(MultiScaleAttention)
def multi_scale_attention(module: Any) -> Declaration:
    """Whole heads are left out."""
    size = int(module.dim_out) // int(module.num_heads)
    heads = Channels(int(module.dim_out), multiple=size)
    return Declaration(
        numbers={"num_heads": heads.per(size)}, writes={"qkv": (heads,) * 3}, reads={"proj": (heads,)}
    )


@declare(WindowAttention)
def cosine_attention(module: Any) -> Declaration:
    """Whole heads are left out of input and output alike, with their scales and position biases."""
    size = int(module.dim) // int(module.num_heads)
    heads = Channels(int(module.dim))
    biases = Channels(int(module.num_heads), multiple=math.lcm(DIVISOR, size) // size)
    tensors: dict[str, dict[int, Length]] = {name: {0: heads} for name in ("q_bias", "k_bias", "v_bias")}
    return Declaration(
        tensors={**tensors, "logit_scale": {0: heads.per(size)}},
        numbers={"num_heads": heads.per(size)},
        writes={"qkv": (heads,) * 3, "cpb_mlp.0": FIXED, "cpb_mlp.2": (biases,)},
        reads={"proj": (heads,)},
        multiple=size,
    )
