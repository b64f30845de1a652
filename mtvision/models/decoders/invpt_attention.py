"""Attention of InvPT over the positions of all tasks, with the logits that stages hand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.pyramid import ceil_div
from mtvision.models.computed_again import computed_again
from mtvision.models.declarations import FIXED, SHARED, Channels, Declaration, Declares
from mtvision.models.declarations.declaration import Runs
from mtvision.models.layers import resize

HEADS = 2
"""Attention heads of every stage, as published."""


@dataclass(frozen=True)
class Scores:
    """Attention logits that are not stored: any rows of them are computed when they are needed.

    Args:
        query: (B, HEADS, T h w, d), task by task.
        key: (B, HEADS, keys, d).
        scale: of the products.
        grid: (h, w) of a task's queries.
        fuse: mixes in the logits of the stage before, if there is one.
        before: those.
    """

    query: Tensor
    key: Tensor
    scale: float
    grid: tuple[int, int]
    fuse: nn.Module | None = None
    before: Scores | None = None

    def rows(self, task: int, first: int, last: int) -> Tensor:
        """Logits (B, HEADS, (last - first) w, keys) of some rows of a task's grid."""
        height, width = self.grid
        start = (task * height + first) * width
        query = self.query[:, :, start : start + (last - first) * width]
        logits: Tensor = query @ self.key.transpose(-2, -1) * self.scale
        if self.fuse is None or self.before is None:
            return logits
        message = self._message(self.before, task, first, last)
        fused: Tensor = self.fuse(torch.cat([logits, message], dim=1))
        return fused

    def _message(self, before: Scores, task: int, first: int, last: int) -> Tensor:
        """The coarser logits at the queries of these rows, bilinear with `align_corners=False`."""
        height, width = self.grid
        coarse, narrow = before.grid
        place = torch.arange(first, last, device=self.query.device, dtype=torch.float64) + 0.5
        place = (place * (coarse / height) - 0.5).clamp(min=0)
        upper = place.long().clamp(max=coarse - 1)
        lower = (upper + 1).clamp(max=coarse - 1)
        share = (place - upper).to(self.query)[:, None]
        # The rows that are read, by the arithmetic of `upper` and `lower` at both ends, without a device.
        top = min(int(max((first + 0.5) * (coarse / height) - 0.5, 0)), coarse - 1)
        end = min(int(max((last - 0.5) * (coarse / height) - 0.5, 0)) + 1, coarse - 1)
        logits = before.rows(task, top, end + 1)
        batch, heads, _, keys = logits.shape
        maps = torch.unflatten(logits, 2, (end + 1 - top, narrow)).permute(0, 1, 4, 2, 3)
        maps = resize(maps.reshape(batch * heads, keys, -1, narrow), (end + 1 - top, width))
        fine = torch.lerp(maps[:, :, upper - top], maps[:, :, lower - top], share)
        return fine.reshape(batch, heads, keys, -1).transpose(2, 3)


Message = Tensor | Scores
"""Attention logits (B, HEADS, queries, keys) of a stage, stored or not."""


class TaskAttention(nn.Module, Declares):
    """Attention over the positions of all tasks at once: fine queries, pooled keys, and a message.

    Scores are divided by the root of the full width, not of a head's. The message, the logits of the coarser
    stage, is enlarged to this stage's queries and mixed into the logits head by head.

    Args:
        names: of the tasks.
        width: channels, a multiple of `HEADS`.
        pool: side of the average pooling that makes keys and values.
        fused: whether there is a message.
        most_scores: logits of one image that are in memory at once; None = all. With a number nothing of the
            size of queries times keys is stored. The backward pass computes it again.
    """

    def __init__(
        self, names: Sequence[str], width: int, *, pool: int, fused: bool, most_scores: int | None = None
    ) -> None:
        super().__init__()
        self.most_scores = most_scores
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

    def forward(
        self, maps: Mapping[str, Tensor], message: Message | None
    ) -> tuple[dict[str, Tensor], Message]:
        """Updates {task: (B, width, h/2, w/2)} and logits (B, HEADS, all queries, all keys)."""
        queries = [self.query[name](maps[name]) for name in self.names]
        pooled = [F.avg_pool2d(maps[name], self.pool, ceil_mode=True) for name in self.names]
        height, width = queries[0].shape[-2:]
        keys = _tokens(pooled)
        q, k, v = (
            layer(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, tokens in ((self.proj_q, _tokens(queries)), (self.proj_k, keys), (self.proj_v, keys))
        )
        scores: Message
        if self.most_scores is None:
            assert not isinstance(message, Scores)  # one decoder makes all stages alike
            logits: Tensor = q @ k.transpose(-2, -1) * self.scale
            if self.fuse is not None and message is not None:
                logits = self.fuse(torch.cat([logits, self._enlarged(message, (height, width))], dim=1))
            scores, read = logits, logits.softmax(dim=-1) @ v
        else:
            before = message if isinstance(message, Scores) else None
            scores = Scores(q, k, self.scale, (height, width), self.fuse, before)
            read = self._in_parts(scores, v, self.most_scores)
        tokens = self.proj(read.transpose(1, 2).flatten(2)).transpose(1, 2)
        # Not `chunk`: its parts of an unknown size cannot be written as ONNX.
        parts = tokens.unflatten(2, (len(self.names), height, width)).unbind(2)
        return dict(zip(self.names, parts, strict=True)), scores

    def _in_parts(self, scores: Scores, v: Tensor, most: int) -> Tensor:
        """What all queries read, (B, HEADS, queries, d), some rows of a task's grid at a time."""
        height, width = scores.grid
        count = max(1, most // (HEADS * width * v.shape[2]))

        def read(task: int, first: int, last: int) -> Tensor:
            return scores.rows(task, first, last).softmax(dim=-1) @ v

        parts = []
        for task in range(len(self.names)):
            for first in range(0, height, count):
                place = (task, first, min(first + count, height))
                again = self.training and torch.is_grad_enabled()
                parts.append(computed_again(read, self, *place) if again else read(*place))
        return torch.cat(parts, dim=2)

    def _enlarged(self, message: Tensor, size: tuple[int, int]) -> Tensor:
        """The logits of the stage before, at this stage's queries; keys are as many in every stage."""
        batch, heads, queries, keys = message.shape
        coarse = _coarser(size, queries // len(self.names))
        maps = torch.unflatten(message, 2, (len(self.names), *coarse)).permute(0, 1, 2, 5, 3, 4)
        fine = resize(maps.reshape(-1, keys, *coarse), size)
        return fine.reshape(batch, heads, len(self.names), keys, -1).transpose(3, 4).flatten(2, 3)


def _coarser(size: tuple[int, int], count: int) -> tuple[int, int]:
    """The grid of `count` queries that `size` was made from by doubling; odd sides round up."""
    height, width = (ceil_div(side, 2) for side in size)
    if height * width != count:
        raise ValueError(f"InvPT: a message of {count} queries a task does not belong to a grid of {size}.")
    return height, width


def _tokens(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([item.flatten(2) for item in maps], dim=2).transpose(1, 2)


def _queries(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)
    )
