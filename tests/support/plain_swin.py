"""Swin Transformer from plain tensor operations: attention in windows, and mmsegmentation's network.

Maps have channels last, (B, h, w, C).
"""

from __future__ import annotations

import torch
from plain import conv, layer_norm, linear, mlp
from torch.nn import functional as F


def _positions(edge):
    """Row of the table of position biases for every pair of places in a window, (edge^2, edge^2)."""
    cells = [(row, column) for row in range(edge) for column in range(edge)]
    return torch.tensor(
        [
            [
                (r - other_r + edge - 1) * (2 * edge - 1) + (c - other_c + edge - 1)
                for other_r, other_c in cells
            ]
            for r, c in cells
        ]
    )


def _region(place, side, edge, shift):
    """Which part of a shifted map a place belongs to, along one axis."""
    return int(place >= side - edge) + int(place >= side - shift) if shift else 0


def window_attention(x, w, name, heads, shift, edge, prompts=None, added=0.0):
    """Attention inside windows of edge x edge pixels, window by window and head by head.

    The map is padded to whole windows, then shifted. Pixels of one window see each other if they come from
    the same region of the map. Prompts (B, T, C) stand in every window, without bias or mask. Scores of
    pixels get `added` (edge^2, edge^2) besides the biases of positions.

    Returns:
        The map; the prompts' mean over windows; raw scores of prompts and pixels (B, heads, T, h, w).
    """
    B, h, wd, C = x.shape
    prompts = x.new_zeros(B, 0, C) if prompts is None else prompts
    T, d = prompts.shape[1], C // heads
    x = F.pad(x, (0, 0, 0, -wd % edge, 0, -h % edge))
    H, W = x.shape[1:3]
    x = torch.roll(x, (-shift, -shift), (1, 2))
    out, raw, seen = torch.zeros_like(x), x.new_zeros(B, heads, T, H, W), []
    bias = w[f"{name}.relative_position_bias_table"][_positions(edge)]
    for top in range(0, H, edge):
        for left in range(0, W, edge):
            rows, columns = slice(top, top + edge), slice(left, left + edge)
            tokens = torch.cat([prompts, x[:, rows, columns].reshape(B, -1, C)], 1)
            q, k, v = linear(tokens, w, f"{name}.qkv").split(C, dim=-1)
            place = [
                (_region(top + i, H, edge, shift), _region(left + j, W, edge, shift))
                for i in range(edge)
                for j in range(edge)
            ]
            mask = x.new_tensor([[0.0 if a == b else -100.0 for b in place] for a in place])
            mixed = []
            for head in range(heads):
                part = slice(head * d, (head + 1) * d)
                s = q[..., part] @ k[..., part].transpose(1, 2)
                raw[:, head, :, rows, columns] = s[:, :T, T:].reshape(B, T, edge, edge)
                extra = F.pad(bias[..., head] + mask + added, (T, 0, T, 0))
                mixed.append((s / d**0.5 + extra).softmax(-1) @ v[..., part])
            y = linear(torch.cat(mixed, -1), w, f"{name}.proj")
            seen.append(y[:, :T])
            out[:, rows, columns] = y[:, T:].reshape(B, edge, edge, C)
    out, raw = torch.roll(out, (shift, shift), (1, 2)), torch.roll(raw, (shift, shift), (3, 4))
    return out[:, :h, :wd], torch.stack(seen).mean(0), raw[..., :h, :wd]


def mmseg_swin(image, w, depths, heads, edge):
    """Levels (B, C, h, w), each behind a norm of its own.

    Every second block shifts, however small the map. Merging takes the four corners channel by channel.
    """
    x = conv(image, w, "backbone.patch_embed.projection", stride=4).permute(0, 2, 3, 1)
    x, levels = layer_norm(x, w, "backbone.patch_embed.norm"), []
    for i, depth in enumerate(depths):
        for j in range(depth):
            name = f"backbone.stages.{i}.blocks.{j}"
            normed = layer_norm(x, w, f"{name}.norm1")
            x = x + window_attention(normed, w, f"{name}.attn.w_msa", heads[i], j % 2 * (edge // 2), edge)[0]
            normed = layer_norm(x, w, f"{name}.norm2")
            x = x + mlp(normed, w, f"{name}.ffn.layers.0.0", f"{name}.ffn.layers.1")
        levels.append(layer_norm(x, w, f"backbone.norm{i}").permute(0, 3, 1, 2))
        if i + 1 < len(depths):
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            corners = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
            x = torch.stack(corners, dim=-1).flatten(-2)
            x = linear(
                layer_norm(x, w, f"backbone.stages.{i}.downsample.norm"),
                w,
                f"backbone.stages.{i}.downsample.reduction",
            )
    return levels
