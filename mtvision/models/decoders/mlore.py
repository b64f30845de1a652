"""MLoRE (Yang et al., CVPR 2024, arXiv 2403.17749): low-rank experts, as in its authors' code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtvision.core.context import batch_mean
from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Factor, Positive
from mtvision.models.declarations import FIXED, Declaration
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.decoders.mlore_block import ExpertBlock, ExpertOptions, FoldedBlock
from mtvision.models.layers import common_grid, enlarge, once_per_map

RANKS = tuple(range(16, 129, 8))


@DECODERS.register_module()
class MLoREDecoder(Decoder):
    """Per level two blocks of low-rank experts for every task, then a learned mixture of levels.

    Tasks share the experts and a 3x3 convolution, and have their own routers. No features pass between them,
    so predicting fewer tasks changes nothing in the others. In evaluation, experts, norms and shared
    convolution are one convolution whose kernel depends on the image; `fold` rewrites the decoder that way.

    Levels of different strides are resized to one grid first (a ViT's have one anyway).

    Args:
        channels: of each pyramid level (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        width: channels of everything after the first 1x1 convolution.
        ranks: of the shared experts.
        task_rank: of every task's own expert.
        top_k: how many shared experts an image uses.
        drop: unused experts `before` the softmax, so that the weights kept sum to one (NYUD-v2), or `after`
            it (PASCAL-Context).
        grid: (height, width) of the maps; see `MapGate`. None: gates for any size.
        balance: weight of the load-balancing loss.
        upscale: enlargement of the feature maps before the heads.
        folded: build the form for inference, for checkpoints written after `fold`.

    Raises:
        ValueError: `top_k` or `drop` is impossible.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        width: Positive = 452,
        ranks: Sequence[Positive] = RANKS,
        task_rank: Positive = 72,
        top_k: Positive = 9,
        drop: Literal["before", "after"] = "after",
        grid: Sequence[Positive] | None = None,
        balance: Factor = 3e-4,
        upscale: Positive = 4,
        folded: bool = False,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        names = [task.name for task in tasks]
        size = None if grid is None else (int(grid[0]), int(grid[1]))
        options = ExpertOptions(width, tuple(ranks), task_rank, top_k, drop, size)
        kind = FoldedBlock if folded else ExpertBlock
        self.balance, self.upscale, self.folded = balance, upscale, folded
        self.out_channels = dict.fromkeys(names, width)
        self.reduce = nn.ModuleList(nn.Conv2d(count, width, 1) for count in self.channels)
        self.first = nn.ModuleList(kind(names, options) for _ in self.channels)
        self.second = nn.ModuleList(kind(names, options) for _ in self.channels)
        self.levels = nn.ModuleDict(
            {name: _level_scores(width * len(self.channels), width, len(self.channels)) for name in names}
        )

    def declaration(self) -> Declaration:
        """One weight per level."""
        return Declaration(writes={f"levels.{name}.3": FIXED for name in self.levels})

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, width, h, w) at a quarter of the common stride."""
        names = [task.name for task in self.asked(tasks)]
        maps = common_grid(pyramid, names)
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for level, reduce in enumerate(self.reduce):
            reduced = once_per_map(reduce, {name: maps[name][level] for name in names})
            for name, feature in reduced.items():
                first = self.first[level](feature, name)
                found[name].append(self.second[level](first, name))
        return DecoderOutput({name: self._mix(name, levels) for name, levels in found.items()})

    def auxiliary_loss(self) -> Tensor:
        """Squared coefficient of variation of the experts' mean weights, summed over blocks, times `balance`.

        Of the last forward pass in training mode; a second call without one gives 0. Mean weights are those
        of the batch (`mtvision.core.context.batch_mean`).
        """
        total = torch.zeros((), device=next(self.parameters()).device)
        for block in (*self.first, *self.second):
            used = block.take_routing() if isinstance(block, ExpertBlock) else None
            if used is not None:
                mean = batch_mean(used)
                total = total + (mean.std() / mean.mean()) ** 2
        return self.balance * total

    @torch.no_grad()
    def fold(self) -> None:
        """Rewrite the decoder in place for inference: same outputs in evaluation mode, fewer operations.

        It takes more memory: every expert becomes a full 3x3 kernel. There is no way back.
        """
        if self.folded:
            return
        self.folded = True
        self.first = nn.ModuleList(FoldedBlock.of(block) for block in self.first)
        self.second = nn.ModuleList(FoldedBlock.of(block) for block in self.second)

    def _mix(self, name: str, maps: list[Tensor]) -> Tensor:
        weights = self.levels[name](torch.cat(maps, dim=1)).softmax(dim=1)
        total = sum(
            (weights[:, index : index + 1] * item for index, item in enumerate(maps)), maps[0].new_zeros(())
        )
        return enlarge(total, self.upscale)


def _level_scores(channels: int, width: int, levels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        nn.BatchNorm2d(width),
        nn.GELU(),
        nn.Conv2d(width, levels, 3, padding=1),
    )
