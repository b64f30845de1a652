"""One stage of InvPT: enlarge every task's map, attend across all tasks, return features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.declarations import FIXED, SHARED, Channels, Declaration, Declares
from mtvision.models.declarations.declaration import Runs
from mtvision.models.layers import resize

HEADS = 2
"""Attention heads of every stage, as published."""


class InvPTStage(nn.Module):
    """Stage i of InvPT (Ye and Xu, ECCV 2022, section 3.3), on maps of every task.

    Args:
        names: of the tasks, in the order of the weights.
        index: 0, 1 or 2. Stages after the first enlarge maps by 2 and read the attention of the one before.
        channels: of the maps read.
        width: of the maps written and used for attention, even.
        out_width: channels of the features handed out; those of the first stage have `width`.
    """

    def __init__(self, names: Sequence[str], index: int, channels: int, width: int, out_width: int) -> None:
        super().__init__()
        self.names, self.index = tuple(names), index
        self.up = nn.ModuleDict({name: _enlarge(channels, width) for name in names if index})
        self.norm1 = nn.LayerNorm(width)
        self.attn = TaskAttention(names, width, pool=2 ** (index + 1), fused=index > 0)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.norm_tasks = nn.LayerNorm(len(self.names) * width)
        self.out = nn.ModuleDict({name: nn.Conv2d(width, out_width, 1) for name in names if index})

    def forward(
        self, maps: Mapping[str, Tensor], skips: Mapping[str, Tensor] | None, message: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Maps and attention logits of this stage.

        Args:
            maps: (B, channels, h, w) of every task.
            skips: (B, width, H, W) of every task, added after enlarging; the maps get that size.
            message: attention logits of the stage before.

        Returns:
            {task: (B, width, H, W)} and the logits, the next stage's message.
        """
        state = {name: self._entered(name, maps[name], skips) for name in self.names}
        height, width = next(iter(state.values())).shape[-2:]
        normed = {name: _last(self.norm1, item) for name, item in state.items()}
        update, message = self.attn(normed, message)
        for name in self.names:
            item = state[name] + resize(update[name], (height, width))
            tokens = item.permute(0, 2, 3, 1)
            state[name] = item + self.mlp(self.norm2(tokens)).permute(0, 3, 1, 2)
        return state, message

    def features(self, maps: Mapping[str, Tensor], asked: Sequence[str]) -> dict[str, Tensor]:
        """What the stage contributes to the tasks asked for: (B, out_width, H, W), normed over all tasks."""
        joined = _last(self.norm_tasks, torch.cat([maps[name] for name in self.names], dim=1))
        parts = dict(zip(self.names, joined.chunk(len(self.names), dim=1), strict=True))
        return {name: self.out[name](parts[name]) if self.index else parts[name] for name in asked}

    def _entered(self, name: str, feature: Tensor, skips: Mapping[str, Tensor] | None) -> Tensor:
        if not self.index:
            return feature
        assert skips is not None  # the decoder gives them to every later stage
        height, width = skips[name].shape[-2:]
        return cast(Tensor, self.up[name](resize(feature, (height, width))) + skips[name])


class TaskAttention(nn.Module, Declares):
    """Attention over the positions of all tasks at once: fine queries, pooled keys, and a message.

    Scores are divided by the root of the full width, not of a head's. The message, the logits of the coarser
    stage, is enlarged to this stage's queries and mixed into the logits head by head.

    Args:
        names: of the tasks.
        width: channels, a multiple of `HEADS`.
        pool: side of the average pooling that makes keys and values.
        fused: whether there is a message.
    """

    def __init__(self, names: Sequence[str], width: int, *, pool: int, fused: bool) -> None:
        super().__init__()
        self.names, self.pool, self.scale = tuple(names), pool, width**-0.5
        self.query = nn.ModuleDict({name: _queries(width) for name in names})
        self.proj_q, self.proj_k, self.proj_v, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.fuse = nn.Conv2d(2 * HEADS, HEADS, 1) if fused else None

    def declaration(self) -> Declaration:
        """Every head keeps its leading channels; the message has one channel a head."""
        heads = (Channels(self.proj.in_features // HEADS, SHARED),) * HEADS
        fuse: dict[str, Runs] = {} if self.fuse is None else {"fuse": FIXED}
        writes = {**dict.fromkeys(("proj_q", "proj_k", "proj_v"), heads), "proj": SHARED, **fuse}
        return Declaration(writes=writes, reads={"proj": heads, **fuse})

    def forward(self, maps: Mapping[str, Tensor], message: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """Updates {task: (B, width, h/2, w/2)} and logits (B, HEADS, all queries, all keys)."""
        queries = [self.query[name](maps[name]) for name in self.names]
        pooled = [F.avg_pool2d(maps[name], self.pool, ceil_mode=True) for name in self.names]
        height, width = queries[0].shape[-2:]
        keys = _tokens(pooled)
        q, k, v = (
            layer(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, tokens in ((self.proj_q, _tokens(queries)), (self.proj_k, keys), (self.proj_v, keys))
        )
        logits = q @ k.transpose(-2, -1) * self.scale
        if self.fuse is not None and message is not None:
            logits = self.fuse(torch.cat([logits, self._enlarged(message, (height, width))], dim=1))
        mixed = (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        parts = self.proj(mixed).transpose(1, 2).chunk(len(self.names), dim=2)
        return {
            name: part.unflatten(2, (height, width)) for name, part in zip(self.names, parts, strict=True)
        }, logits

    def _enlarged(self, message: Tensor, size: tuple[int, int]) -> Tensor:
        """The logits of the stage before, at this stage's queries; keys are as many in every stage."""
        batch, heads, queries, keys = message.shape
        coarse = _coarser(size, queries // len(self.names))
        maps = torch.unflatten(message, 2, (len(self.names), *coarse)).permute(0, 1, 2, 5, 3, 4)
        fine = resize(maps.reshape(-1, keys, *coarse), size)
        return fine.reshape(batch, heads, len(self.names), keys, -1).transpose(3, 4).flatten(2, 3)


def _coarser(size: tuple[int, int], count: int) -> tuple[int, int]:
    """The grid of `count` queries that `size` was made from by doubling; odd sides round up."""
    height, width = (-(-side // 2) for side in size)
    if height * width != count:
        raise ValueError(f"InvPT: a message of {count} queries a task does not belong to a grid of {size}.")
    return height, width


def _last(norm: nn.Module, feature: Tensor) -> Tensor:
    """A LayerNorm over the channels of an NCHW map."""
    return cast(Tensor, norm(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def _tokens(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([item.flatten(2) for item in maps], dim=2).transpose(1, 2)


def _enlarge(channels: int, width: int) -> nn.Sequential:
    """Two dilated convolutions; the map was enlarged before."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _queries(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)
    )
