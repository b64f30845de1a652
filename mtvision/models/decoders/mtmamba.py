"""MTMamba (Lin et al., ECCV 2024, arXiv 2407.02228): a decoder of state-space blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Positive, Rate, Share
from mtvision.models.declarations import SHARED, Declaration, Declares
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.decoders.mtmamba_stage import (
    Levels,
    Stage,
    Streams,
    check_expansion,
    drop_path_schedule,
    stage_widths,
)
from mtvision.models.layers.patch_expand import PatchExpand
from mtvision.models.layers.ss2d import NORM_EPS, SS2D


@DECODERS.register_module()
class MTMambaDecoder(Decoder):
    """One stream per task, from the coarsest map up; state-space blocks within and between the streams.

    Each stage doubles the resolution, joins the backbone's map, passes `num_blocks` self-task blocks (STM)
    and one cross-task block (CTM, see `CrossTask`). At the end every stream is expanded to the image's
    resolution (for a finest stride of 4). Use it with `ConvHead()`, a 1x1 convolution, as the authors do.

    With Swin-L, NYUD-v2 and four tasks it has the official number of parameters, 307.999 M, and the official
    weights fit (`mtvision.models.convert`). The order of `tasks` is part of the weights.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        widths: channels of the streams after each stage, coarse to fine; by default those of the backbone.
        num_blocks: STM blocks per stage and task.
        expansion: inner channels of state-space layers over the stream's.
        states: size of the state.
        drop_path: of the first block, falling linearly to 0.
        upsample: factor of the last expansion.

    Raises:
        ValueError: the pyramid's strides neither double nor are equal, or an option does not fit.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        widths: Sequence[Positive] | None = None,
        num_blocks: Positive = 2,
        expansion: Rate = 2.0,
        states: Positive = 16,
        drop_path: Share = 0.2,
        upsample: Positive = 4,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        names = [task.name for task in tasks]
        self.levels = Levels(channels, strides)
        outs = stage_widths(channels, widths)
        rates = drop_path_schedule(drop_path, len(outs), num_blocks + 1)
        self.stages = nn.ModuleList(
            Stage(
                names,
                ([channels[-1], *outs])[index],
                channels[-2 - index],
                width,
                expansion=expansion,
                states=states,
                drop_paths=rates[index][:-1],
                exchange=self.exchange(names, width, expansion, states, rates[index][-1]),
            )
            for index, width in enumerate(outs)
        )
        self.final = nn.ModuleDict({name: self.finish(outs[-1], upsample) for name in names})
        self.out_channels = dict.fromkeys(names, outs[-1])

    def recomputed(self) -> list[str]:
        """Also the scan of all tasks, where a stage has one."""
        shared = (f"stages.{index}.exchange.op_share" for index in range(len(self.stages)))
        return [*super().recomputed(), *(path for path in shared if path in dict(self.named_modules()))]

    def exchange(
        self, names: Sequence[str], width: int, expansion: float, states: int, drop_path: float
    ) -> nn.Module:
        """The cross-task block of a stage."""
        return CrossTask(names, width, check_expansion(expansion, width), states=states, drop_path=drop_path)

    def finish(self, width: int, upsample: int) -> nn.Module:
        """What follows the last stage, for one task; channels come last."""
        return PatchExpand(width, width, upsample)

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, C, h, w). All tasks run up to the last exchange; only `tasks` go through it."""
        every = [task.name for task in self.tasks]
        asked = [task.name for task in self.asked(tasks)]
        maps = {name: self.levels(pyramid.for_task(name).maps) for name in every}
        streams: Streams = {name: maps[name][0] for name in every}
        for index, stage in enumerate(self.stages, start=1):
            skips = {name: maps[name][index] for name in every}
            streams = stage(streams, skips, asked if index == len(self.stages) else every)
        return DecoderOutput({name: self.to_feature(name, streams[name]) for name in asked})

    def to_feature(self, name: str, stream: Tensor) -> Tensor:
        """Feature map (B, C, h, w) of a task's last stream (B, h, w, C)."""
        return cast(Tensor, self.final[name](stream)).permute(0, 3, 1, 2)


class CrossTask(nn.Module, Declares):
    """Cross-task block (CTM; "F-CTM" in MTMamba++): a task mixes its own scan with one scan of all tasks.

        g_t = sigmoid(W_t n_t)        x_t <- x_t + W'_t (g_t * G + (1 - g_t) * P_t)

    with n_t = LN(x_t), P_t a scan of n_t, and G a scan of LN([x_1 | ... | x_T]), both without gate and
    projection.

    Args:
        names: tasks, in order: G reads them concatenated.
        channels: of the streams.
        inner: of the scans.
        states: N of the scans.
        drop_path: probability of skipping the block, per sample.
    """

    def __init__(
        self, names: Sequence[str], channels: int, inner: int, *, states: int, drop_path: float
    ) -> None:
        super().__init__()
        total = len(names) * channels
        rank = -(-channels // 16)

        def core(width: int) -> SS2D:
            return SS2D(width, inner, states=states, rank=rank, gate=False)

        def linear(read: int, written: int) -> nn.ModuleDict:
            return nn.ModuleDict({name: nn.Linear(read, written, bias=False) for name in names})

        self.norm_share = nn.LayerNorm(total, eps=NORM_EPS)
        self.op_share = core(total)
        self.norm = nn.ModuleDict({name: nn.LayerNorm(channels, eps=NORM_EPS) for name in names})
        self.op = nn.ModuleDict({name: core(channels) for name in names})
        self.gate = linear(channels, inner)
        self.out_proj = linear(inner, channels)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def declaration(self) -> Declaration:
        """Scans of tasks are mixed with the one of all, so they are as wide."""
        return Declaration(parts={"op": SHARED, "gate": SHARED})

    def forward(self, streams: Streams, asked: Sequence[str]) -> dict[str, Tensor]:
        """Streams (B, h, w, C) of `asked`, each having read all."""
        shared = self.op_share(self.norm_share(torch.cat(list(streams.values()), dim=-1)))
        result = {}
        for name in asked:
            normed = self.norm[name](streams[name])
            mixed = torch.lerp(self.op[name](normed), shared, torch.sigmoid(self.gate[name](normed)))
            result[name] = streams[name] + self.drop_path(self.out_proj[name](mixed))
        return result
