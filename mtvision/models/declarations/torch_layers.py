"""How the layers of torch slim."""

from __future__ import annotations

from fractions import Fraction

from torch import nn

from mtvision.models.declarations.declaration import (
    READS,
    WRITES,
    Channels,
    Declaration,
    Layer,
    Length,
    declare,
)


@declare(nn.Conv2d)
def convolution(layer: nn.Conv2d) -> Declaration:
    """Leading rows and columns of the weights; of a grouped one as many groups as arrive, whole."""
    if layer.groups == 1:
        return Declaration(
            layer=Layer(1, layer.in_channels, layer.out_channels),
            tensors={"weight": {0: WRITES, 1: READS}, "bias": {0: WRITES}},
            numbers={"in_channels": READS, "out_channels": WRITES},
        )
    size = layer.in_channels // layer.groups
    factor = Fraction(layer.out_channels, layer.in_channels)
    rows = READS.times(factor)
    return Declaration(
        layer=Layer(1, layer.in_channels, factor=factor),
        tensors={"weight": {0: rows}, "bias": {0: rows}},
        numbers={"in_channels": READS, "out_channels": rows, "groups": READS.per(size)},
        multiple=size,
    )


@declare(nn.ConvTranspose2d)
def transposed_convolution(layer: nn.ConvTranspose2d) -> Declaration:
    """As a convolution, with the axes of the weights exchanged; not grouped."""
    return Declaration(
        layer=Layer(1, layer.in_channels, layer.out_channels),
        tensors={"weight": {0: READS, 1: WRITES}, "bias": {0: WRITES}},
        numbers={"in_channels": READS, "out_channels": WRITES},
        cannot_slim="its groups would be cut" if layer.groups > 1 else "",
    )


@declare(nn.Linear)
def linear(layer: nn.Linear) -> Declaration:
    """Leading rows and columns of the weights."""
    return Declaration(
        layer=Layer(-1, layer.in_features, layer.out_features),
        tensors={"weight": {0: WRITES, 1: READS}, "bias": {0: WRITES}},
        numbers={"in_features": READS, "out_features": WRITES},
    )


@declare(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm) -> Declaration:
    """The affine of the channels that arrive, which are the last axis."""
    return normed_last(layer, -1)


def normed_last(layer: nn.LayerNorm, axis: int) -> Declaration:
    """A layer norm whose input has its channels at `axis`."""
    several = "it normalises over several axes" if len(layer.normalized_shape) > 1 else ""
    return Declaration(
        layer=Layer(axis, layer.normalized_shape[-1]),
        tensors={"weight": {0: READS}, "bias": {0: READS}},
        numbers={"normalized_shape": (READS,)},
        cannot_slim=several,
    )


@declare(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm) -> Declaration:
    """Groups keep their size."""
    size = layer.num_channels // layer.num_groups
    return Declaration(
        layer=Layer(1, layer.num_channels),
        tensors={"weight": {0: READS}, "bias": {0: READS}},
        numbers={"num_channels": READS, "num_groups": READS.per(size)},
        multiple=size,
    )


@declare(nn.BatchNorm2d)
def batch_norm(layer: nn.BatchNorm2d) -> Declaration:
    """Affine and statistics of the channels that arrive; every width has statistics of its own."""
    return Declaration(
        layer=Layer(1, layer.num_features, normalises=True),
        tensors={name: {0: READS} for name in ("weight", "bias", "running_mean", "running_var")},
    )


@declare(nn.MultiheadAttention)
def multihead_attention(layer: nn.MultiheadAttention) -> Declaration:
    """Whole heads are left out, so queries arrive with the channels of whole heads of the layer's part.

    Keys and values that are as wide as queries have to be so when slimmed; others stay whole.
    """
    width = Channels(layer.embed_dim)  # a multiple of the size of a head, as all of its part
    blocks: dict[str, dict[int, Length]] = {
        "in_proj_weight": {0: (width,) * 3, 1: width},
        "q_proj_weight": {0: width, 1: width},
        "k_proj_weight": {0: width},
        "v_proj_weight": {0: width},
        "in_proj_bias": {0: (width,) * 3},
        "bias_k": {2: width},
        "bias_v": {2: width},
        "out_proj.weight": {0: width, 1: width},
        "out_proj.bias": {0: width},
    }
    equal = ("kdim", "vdim") if layer._qkv_same_embed_dim else ()
    widths = ("embed_dim", *equal, "out_proj.in_features", "out_proj.out_features")
    return Declaration(
        layer=Layer(-1, layer.embed_dim, layer.embed_dim, batch_axis=0 if layer.batch_first else 1),
        tensors=blocks,
        numbers={**dict.fromkeys(widths, width), "num_heads": width.per(layer.head_dim)},
        multiple=layer.head_dim,
    )
