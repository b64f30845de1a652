"""How the layers of timm slim."""

from __future__ import annotations

from typing import Any

from timm.layers.attention import Attention
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.layer_scale import LayerScale
from timm.layers.norm import LayerNorm, LayerNorm2d
from timm.layers.norm_act import BatchNormAct2d
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import VisionTransformer

from mtvision.architecture.widths import FIXED
from mtvision.models.declarations import torch_layers
from mtvision.models.declarations.declaration import (
    READS,
    Channels,
    Declaration,
    Layer,
    Runs,
    declare,
)

declare(Conv2dSame)(torch_layers.convolution)
declare(LayerNorm)(torch_layers.layer_norm)
declare(BatchNormAct2d)(torch_layers.batch_norm)


@declare(LayerNorm2d)
def layer_norm_2d(layer: LayerNorm2d) -> Declaration:
    """A layer norm of maps with the channels in front."""
    return torch_layers.normed_last(layer, 1)


@declare(LayerScale)
def layer_scale(layer: LayerScale) -> Declaration:
    """One factor for every channel that arrives."""
    return Declaration(layer=Layer(-1, len(layer.gamma)), tensors={"gamma": {0: READS}})


@declare(Attention, WindowAttention)
def attention(module: Any) -> Declaration:
    """Whole heads are left out; a window's position biases have one column a head."""
    size = int(module.qkv.out_features) // 3 // int(module.num_heads)
    heads = Channels(int(module.num_heads) * size, multiple=size)
    windows = isinstance(module, WindowAttention)
    found = {name for name, item in module.named_children() if next(item.parameters(), None) is not None}
    # The norms of queries and keys read one head at a time.
    norms: dict[str, Runs] = {"q_norm": FIXED, "k_norm": FIXED, "norm": (heads,)}
    return Declaration(
        tensors={"relative_position_bias_table": {1: heads.per(size)}} if windows else {},
        numbers={"num_heads": heads.per(size), **({} if windows else {"attn_dim": heads})},
        writes={"qkv": (heads,) * 3, **({"gate": (heads,)} if "gate" in found else {})},
        reads={"proj": (heads,), **{name: runs for name, runs in norms.items() if name in found}},
    )


@declare(VisionTransformer)
def vision_transformer(module: Any) -> Declaration:
    """Position embedding and tokens have the leading channels."""
    width = Channels(int(module.embed_dim))
    names = ("pos_embed", "cls_token", "reg_token")
    return Declaration(tensors={name: {2: width} for name in names})
