"""Layers in evaluation mode from plain tensor operations, on a state dict and the name of a layer in it.

Reference networks in tests are written with these and share no code with the networks that they check. Maps
are (B, C, h, w); layers that act on the last axis take (..., C).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def conv(x, w, name, **options):
    """Convolution; the bias is optional."""
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **options)


def same_conv(x, w, name, dilation=1, **options):
    """Convolution of an odd kernel that keeps the size, but for its stride."""
    padding = dilation * (w[f"{name}.weight"].shape[-1] // 2)
    return conv(x, w, name, padding=padding, dilation=dilation, **options)


def batch_norm(x, w, name, eps=1e-5):
    """Batch norm with running statistics, written out: torch's has no gradient for them."""
    mean, var, weight, bias = (
        w[f"{name}.{item}"][:, None, None] for item in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + eps) * weight + bias


def layer_norm(x, w, name, eps=1e-5):
    """Layer norm over the last axis."""
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def map_norm(x, w, name, eps=1e-5):
    """Layer norm over the channels of a map."""
    return layer_norm(x.permute(0, 2, 3, 1), w, name, eps).permute(0, 3, 1, 2)


def linear(x, w, name):
    """Linear layer; the bias is optional."""
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def mlp(x, w, first, second):
    """Linear, GELU, linear."""
    return linear(F.gelu(linear(x, w, first)), w, second)


def bilinear(x, size):
    """A map at another size."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def enlarge(x, factor):
    """A map `factor` times as large."""
    return bilinear(x, [factor * side for side in x.shape[-2:]])


def attention(x, w, name, heads):
    """Self-attention of tokens (B, N, C), head by head."""
    C = x.shape[-1]
    q, k, v = linear(x, w, f"{name}.qkv").split(C, dim=-1)
    mixed = []
    for head in range(heads):
        part = slice(head * C // heads, (head + 1) * C // heads)
        scores = torch.einsum("bqc,bkc->bqk", q[..., part], k[..., part]) / (C // heads) ** 0.5
        mixed.append(scores.softmax(-1) @ v[..., part])
    return linear(torch.cat(mixed, -1), w, f"{name}.proj")


def vit_block(x, w, name, heads):
    """Block of a ViT on tokens (B, N, C)."""
    x = x + attention(layer_norm(x, w, f"{name}.norm1", 1e-6), w, f"{name}.attn", heads)
    return x + mlp(layer_norm(x, w, f"{name}.norm2", 1e-6), w, f"{name}.mlp.fc1", f"{name}.mlp.fc2")


def to_tokens(x):
    """(B, C, h, w) to (B, h w, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(x, size):
    """Inverse of `to_tokens`."""
    return x.transpose(1, 2).unflatten(2, tuple(size))


def count(w, prefix):
    """How many children a module has, by the names of its tensors."""
    return len({key.removeprefix(prefix).split(".")[0] for key in w if key.startswith(prefix)})
