"""How timm's plain ViTs slim: EVA, DINOv3, PE, NaFlex, BEiT, SAM."""

from __future__ import annotations

from typing import Any

from timm.layers.attention import AttentionRope
from timm.layers.mlp import GluMlp
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.beit import Block as BeitBlock
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.naflexvit import NaFlexEmbeds
from timm.models.vision_transformer_sam import Attention as SAMAttention
from timm.models.vision_transformer_sam import VisionTransformerSAM

from mtvision.architecture.widths import FIXED
from mtvision.models.declarations.declaration import Channels, Declaration, Length, Runs, declare


@declare(Eva, Beit)
def tokens(module: Any) -> Declaration:
    """Position embedding and tokens have the leading channels."""
    width = Channels(int(module.embed_dim))
    return Declaration(tensors={name: {2: width} for name in ("pos_embed", "cls_token", "reg_token")})


@declare(NaFlexEmbeds)
def patches(module: Any) -> Declaration:
    """As of a ViT; the position embedding is a map, or one table per axis."""
    width = Channels(int(module.embed_dim))
    own: dict[str, dict[int, Length]] = {"pos_embed": {3: width}}
    own |= {name: {2: width} for name in ("pos_embed_y", "pos_embed_x", "cls_token", "reg_token")}
    return Declaration(tensors=own)


@declare(VisionTransformerSAM)
def map_of_tokens(module: Any) -> Declaration:
    """The position embedding is a map with the channels last."""
    return Declaration(tensors={"pos_embed": {3: Channels(int(module.embed_dim))}})


@declare(EvaBlock, BeitBlock)
def scaled_block(module: Any) -> Declaration:
    """One factor for every channel of both branches."""
    width = Channels(int(module.norm1.normalized_shape[0]))
    return Declaration(tensors={"gamma_1": {0: width}, "gamma_2": {0: width}})


@declare(EvaAttention, BeitAttention)
def separate_biases(module: Any) -> Declaration:
    """Whole heads are left out of input and output alike; biases of queries, keys and values are tensors."""
    size = int(module.proj.in_features) // int(module.num_heads)
    heads = Channels(int(module.num_heads) * size)
    found = {name for name, item in module.named_children() if next(item.parameters(), None) is not None}
    norms: dict[str, Runs] = {"q_norm": FIXED, "k_norm": FIXED, "norm": (heads,)}
    writes: dict[str, Runs] = {"qkv": (heads,) * 3}
    writes |= dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate"), (heads,))
    tensors: dict[str, dict[int, Length]] = {name: {0: heads} for name in ("q_bias", "k_bias", "v_bias")}
    return Declaration(
        tensors={**tensors, "relative_position_bias_table": {1: heads.per(size)}},
        numbers={"num_heads": heads.per(size)},
        writes={name: runs for name, runs in writes.items() if name in found},
        reads={"proj": (heads,), **{name: runs for name, runs in norms.items() if name in found}},
        multiple=size,
    )


@declare(AttentionRope)
def rotary_attention(module: Any) -> Declaration:
    """Whole heads are left out; groups of heads that share keys and values stay whole."""
    size, groups = int(module.head_dim), int(module.num_kv_groups)
    heads = Channels(int(module.attn_dim), multiple=size * groups)
    pairs = Channels(int(module.kv_dim), multiple=size)
    found = {name for name, item in module.named_children() if next(item.parameters(), None) is not None}
    norms: dict[str, Runs] = {"q_norm": FIXED, "k_norm": FIXED, "norm": (heads,)}
    writes: dict[str, Runs] = {"qkv": (heads,) * 3, "q_proj": (heads,), "gate": (heads,)}
    writes |= dict.fromkeys(("k_proj", "v_proj"), (pairs,))
    return Declaration(
        numbers={
            "num_heads": heads.per(size),
            "num_kv_heads": pairs.per(size),
            "attn_dim": heads,
        },
        writes={name: runs for name, runs in writes.items() if name in found},
        reads={"proj": (heads,), **{name: runs for name, runs in norms.items() if name in found}},
    )


@declare(GluMlp)
def gated_mlp(module: Any) -> Declaration:
    """Both halves of the inner channels are slimmed alike."""
    half = Channels(int(module.fc1.weight.shape[0]) // 2)
    norm = {"norm": (half,)} if next(module.norm.parameters(), None) is not None else {}
    return Declaration(writes={"fc1": (half, half)}, reads={"fc2": (half,), **norm})


@declare(SAMAttention)
def decomposed_positions(module: Any) -> Declaration:
    """Whole heads are left out; position embeddings have the channels of one head and stay."""
    size = int(module.head_dim)
    heads = Channels(int(module.num_heads) * size, multiple=size)
    found = {name for name, item in module.named_children() if next(item.parameters(), None) is not None}
    return Declaration(
        tensors={"rel_pos_h": {}, "rel_pos_w": {}},
        numbers={"num_heads": heads.per(size)},
        writes={"qkv": (heads,) * 3},
        reads={"proj": (heads,), **{name: FIXED for name in ("q_norm", "k_norm") if name in found}},
    )
