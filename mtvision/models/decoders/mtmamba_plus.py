"""MTMamba++ (Lin et al., TPAMI 2025, arXiv 2408.15101): semantic-aware exchange and a lighter end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Positive, Rate, Share
from mtvision.models.decoders.mtmamba import MTMambaDecoder
from mtvision.models.decoders.mtmamba_stage import Streams, check_expansion
from mtvision.models.layers.ss2d import NORM_EPS, SS2D


@DECODERS.register_module()
class MTMambaPlusDecoder(MTMambaDecoder):
    """MTMamba with two changes: tasks exchange by `SemanticCrossTask`; features stay at the finest stride.

    After the last stage a 3x3 convolution halves the channels, with batch norm and ReLU. Use it with
    `ConvHead()`. With Swin-L, NYUD-v2 and four tasks: 315.021 M parameters, and the official weights fit.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        head_channels: of the feature maps; by default half of the last stream's.
        options: as in `MTMambaDecoder`, except `upsample`.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        head_channels: Positive | None = None,
        widths: Sequence[Positive] | None = None,
        num_blocks: Positive = 2,
        expansion: Rate = 2.0,
        states: Positive = 16,
        drop_path: Share = 0.2,
    ) -> None:
        options: dict[str, Any] = {"widths": widths, "num_blocks": num_blocks, "expansion": expansion}
        options |= {"states": states, "drop_path": drop_path}
        self._head_channels = head_channels
        super().__init__(channels=channels, strides=strides, tasks=tasks, **options)
        width = self.out_channels[tasks[0].name]
        self.out_channels = dict.fromkeys(self.out_channels, head_channels or width // 2)

    def exchange(
        self, names: Sequence[str], width: int, expansion: float, states: int, drop_path: float
    ) -> nn.Module:
        """The cross-task block of a stage."""
        inner = check_expansion(expansion, width)
        return SemanticCrossTask(names, width, inner, states=states, drop_path=drop_path)

    def finish(self, width: int, upsample: int) -> nn.Module:
        """Convolution, norm and ReLU on a map with channels first."""
        channels = self._head_channels or width // 2
        conv = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.trunc_normal_(conv.weight, std=0.02)
        return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def to_feature(self, name: str, stream: Tensor) -> Tensor:
        """Feature map (B, C, h, w) of a task's last stream (B, h, w, C)."""
        return cast(Tensor, self.final[name](stream.permute(0, 3, 1, 2)))


class SemanticCrossTask(nn.Module):
    """S-CTM: every task scans itself, with step sizes, B and C read from a context of all tasks.

    Args:
        names: tasks, in order: the context reads them concatenated.
        channels: of the streams and the context.
        inner: of the scans.
        states: N of the scans.
        drop_path: probability of skipping the block, per sample.
    """

    def __init__(
        self, names: Sequence[str], channels: int, inner: int, *, states: int, drop_path: float
    ) -> None:
        super().__init__()
        total = len(names) * channels
        self.norm_share = nn.LayerNorm(total, eps=NORM_EPS)
        self.conv_share = nn.Sequential(
            nn.Conv2d(total, channels, 1), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.norm = nn.ModuleDict({name: nn.LayerNorm(channels, eps=NORM_EPS) for name in names})
        self.op = nn.ModuleDict(
            {
                name: SS2D(channels, inner, channels, states=states, context_channels=channels)
                for name in names
            }
        )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, streams: Streams, asked: Sequence[str]) -> dict[str, Tensor]:
        """Streams (B, h, w, C) of `asked`, each having read all."""
        joined = self.norm_share(torch.cat(list(streams.values()), dim=-1))
        context = self.conv_share(joined.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return {
            name: streams[name] + self.drop_path(self.op[name](self.norm[name](streams[name]), context))
            for name in asked
        }
