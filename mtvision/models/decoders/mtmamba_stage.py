"""Shared parts of the decoders of MTMamba and MTMamba++: one stage, and the maps it reads.

A stage doubles the resolution of every task's stream and joins the backbone's map of that resolution.
State-space blocks (STM) refine each stream. A cross-task block (CTM) exchanges features between tasks.
Inside, channels come last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtvision.models.layers.patch_expand import PatchExpand
from mtvision.models.layers.ss2d import VSSBlock

Streams = Mapping[str, Tensor]
"""{task: (B, h, w, C)}."""


class Stage(nn.Module):
    """Expand, concatenate, reduce; STM blocks; one exchange between the tasks.

    Args:
        names: tasks, in order.
        in_channels: of the streams that come in.
        skip_channels: of the backbone's map.
        width: channels of the streams that go out.
        expansion: inner channels of the state-space layers over `width`.
        states: N of the state-space layers.
        drop_paths: of the STM blocks, one each.
        exchange: the module through which tasks exchange.
    """

    def __init__(
        self,
        names: Sequence[str],
        in_channels: int,
        skip_channels: int,
        width: int,
        *,
        expansion: float,
        states: int,
        drop_paths: Sequence[float],
        exchange: nn.Module,
    ) -> None:
        super().__init__()

        def per_task(make: Callable[[], nn.Module]) -> nn.ModuleDict:
            return nn.ModuleDict({name: make() for name in names})

        def blocks() -> nn.Module:
            made = (
                VSSBlock(width, expansion=expansion, states=states, drop_path=rate) for rate in drop_paths
            )
            return nn.Sequential(*made)

        self.expand = per_task(lambda: PatchExpand(in_channels, width))
        self.reduce = per_task(lambda: nn.Linear(width + skip_channels, width))
        self.blocks = per_task(blocks)
        self.exchange = exchange

    def forward(self, streams: Streams, skips: Streams, asked: Sequence[str]) -> dict[str, Tensor]:
        """Streams (B, 2h, 2w, width) of the tasks in `asked`; all tasks' streams and maps come in."""
        refined = {}
        for name, stream in streams.items():
            skip = skips[name]
            # A backbone that rounds up when it halves leaves a map one row or column smaller than twice.
            expanded = self.expand[name](stream)[:, : skip.shape[1], : skip.shape[2]]
            joined = self.reduce[name](torch.cat([expanded, skip], dim=-1))
            refined[name] = self.blocks[name](joined)
        exchanged: dict[str, Tensor] = self.exchange(refined, asked)
        return exchanged


class Levels(nn.Module):
    """Maps of a pyramid whose strides double from level to level, channels last, coarse to fine.

    Levels of one stride (a plain ViT's) are first resampled to 1/4, 1/2, 1 and 2 times that stride. Learned
    (transposed) convolutions do it, as in ViTDet (Li et al., ECCV 2022).

    Args:
        channels: of each level, fine to coarse.
        strides: of each level.

    Raises:
        ValueError: fewer than two levels, or strides that neither double nor are all equal.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        ratios = {after / before for before, after in pairwise(strides)}
        if len(strides) < 2 or ratios not in ({1.0}, {2.0}):
            raise ValueError(
                f"MTMamba decoders need two or more levels whose strides double or are all equal, got "
                f"{tuple(strides)}. Choose other levels of the backbone."
            )
        self.resample = nn.ModuleList()
        if ratios == {1.0}:
            middle = len(channels) - 2
            self.resample.extend(_resampler(count, middle - index) for index, count in enumerate(channels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, h, w), fine to coarse, to (B, h, w, C), coarse to fine."""
        if len(self.resample):
            maps = [layer(item) for layer, item in zip(self.resample, maps, strict=True)]
        return [item.permute(0, 2, 3, 1) for item in reversed(maps)]


def _resampler(channels: int, doublings: int) -> nn.Module:
    if doublings < 0:
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
    return nn.Sequential(*(nn.ConvTranspose2d(channels, channels, 2, stride=2) for _ in range(doublings)))


def stage_widths(channels: Sequence[int], widths: Sequence[int] | None) -> list[int]:
    """Channels of the streams after each stage; by default those of the backbone's maps, as in the paper.

    Raises:
        ValueError: not one width per stage.
    """
    stages = len(channels) - 1
    if widths is None:
        return list(channels[-2::-1])
    if len(widths) != stages:
        raise ValueError(f"widths={list(widths)}: give {stages}, one per stage, coarse to fine.")
    return list(widths)


def drop_path_schedule(rate: float, stages: int, per_stage: int) -> list[list[float]]:
    """From `rate` in the first block down to 0 in the last; an exchange counts as a block."""
    rates = torch.linspace(rate, 0, stages * per_stage, device="cpu").tolist()
    return [rates[index : index + per_stage] for index in range(0, len(rates), per_stage)]


def check_expansion(expansion: float, width: int) -> int:
    """Inner channels of a state-space layer.

    Raises:
        ValueError: not a whole number.
    """
    inner = expansion * width
    if not math.isclose(inner, round(inner)):
        raise ValueError(f"expansion={expansion} times {width} channels is not a whole number.")
    return round(inner)
