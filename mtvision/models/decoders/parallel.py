"""The multi-task baseline: a light decoder of its own for every task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, cast

from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.output import Auxiliary, DecoderOutput
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import ByTask, Factor, Positive
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.heads.output import as_convolution
from mtvision.models.layers import ConvNorm, NormName, resize


@DECODERS.register_module()
class ParallelDecoder(Decoder):
    """One feature pyramid network per task; tasks share the backbone and nothing else.

    Per task, every level passes a 1x1 convolution to `channels`. A coarser level is added to the next finer
    one, a 3x3 convolution smooths each, and all are summed at the finest level. This is a feature pyramid
    network (Lin et al., CVPR 2017) with the sum at one level of Kirillov et al. (CVPR 2019). Levels of one
    stride (ViT) are first resampled by learned (transposed) convolutions to 1/4, 1/2, 1 and 2 times that
    stride (as in ViTDet, Li et al., ECCV 2022).

    With a single task this is the single-task baseline of a multi-task gain.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        width: channels of each task's decoder.
        task_widths: {task: width} where it differs.
        num_layers: 3x3 convolutions after the sum, at the finest level.
        norm: `batch` or `group`.
        deep_supervision: weight of auxiliary logits from every level but the finest; None for none. They
            are computed in training mode only.

    Raises:
        UnknownNameError: `task_widths` names a task that is not there.
    """

    task_options = ("task_widths",)

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        width: Positive = 64,
        task_widths: Annotated[Mapping[str, Positive], ByTask()] | None = None,
        num_layers: Positive = 1,
        norm: NormName = "batch",
        deep_supervision: Factor | None = None,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        names = [task.name for task in tasks]
        for name in task_widths or {}:
            if name not in names:
                raise UnknownNameError("task in task_widths", name, names)
        self.deep_supervision = deep_supervision
        self.out_channels = {name: (task_widths or {}).get(name, width) for name in names}
        self.decoders = nn.ModuleDict(
            {
                task.name: FeaturePyramid(
                    self.channels,
                    self.strides,
                    self.out_channels[task.name],
                    num_layers=num_layers,
                    norm=norm,
                    auxiliary_channels=None if deep_supervision is None else task.out_channels,
                )
                for task in tasks
            }
        )

    def reads(self, tasks: Sequence[str] | None) -> Sequence[str] | None:
        """Only the maps of the tasks asked for."""
        return tasks

    def output_layers(self, task: str) -> list[nn.Conv2d]:
        """Of deep supervision."""
        return [*map(as_convolution, cast(FeaturePyramid, self.decoders[task]).auxiliary)]

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, width, h, w) at the finest level's stride, or a quarter of a ViT's stride."""
        features, auxiliary = {}, []
        for task in self.asked(tasks):
            features[task.name], logits = self.decoders[task.name](pyramid.for_task(task.name).maps)
            weight = self.deep_supervision or 0.0
            auxiliary += [Auxiliary(task.name, item, weight) for item in logits]
        return DecoderOutput(features, auxiliary)


class FeaturePyramid(nn.Module):
    """Maps of several levels to one map at the finest.

    Args:
        channels: of each map, fine to coarse.
        strides: of each map; all equal for a ViT.
        width: channels inside and of the result.
        num_layers: 3x3 convolutions after the sum.
        norm: `batch` or `group`.
        auxiliary_channels: channels of auxiliary logits at every level but the finest; None for none.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int,
        *,
        num_layers: int = 1,
        norm: NormName = "batch",
        auxiliary_channels: int | None = None,
    ) -> None:
        super().__init__()
        factors = _resampling(strides)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, width, 1), *_resampler(width, factor))
            for count, factor in zip(channels, factors, strict=True)
        )
        self.smooth = nn.ModuleList(ConvNorm(width, width, norm=norm) for _ in channels)
        self.layers = nn.Sequential(*(ConvNorm(width, width, norm=norm) for _ in range(num_layers)))
        count = 0 if auxiliary_channels is None else len(self.smooth) - 1
        self.auxiliary = nn.ModuleList(nn.Conv2d(width, auxiliary_channels or 1, 1) for _ in range(count))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Result (B, width, h, w) and, in training mode, auxiliary logits, finer first."""
        levels = [lateral(item) for lateral, item in zip(self.lateral, maps, strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + resize(levels[index + 1], size_of(levels[index]))
        levels = [smooth(item) for smooth, item in zip(self.smooth, levels, strict=True)]
        total = levels[0]
        for item in levels[1:]:
            total = total + resize(item, size_of(total))
        auxiliary = list(zip(self.auxiliary, levels[1:], strict=False)) if self.training else []
        return self.layers(total), [layer(item) for layer, item in auxiliary]


def _resampling(strides: Sequence[int]) -> list[float]:
    """Factor by which each map is enlarged; 1 unless all levels have one stride."""
    if len(strides) == 1 or len(set(strides)) > 1:
        return [1.0] * len(strides)
    return [2.0 ** (len(strides) - 2 - index) for index in range(len(strides))]


def _resampler(width: int, factor: float) -> list[nn.Module]:
    if factor == 1:
        return []
    if factor == 0.5:
        return [nn.GELU(), nn.Conv2d(width, width, 3, stride=2, padding=1)]
    steps = int(math.log2(factor))
    return [
        layer for _ in range(steps) for layer in (nn.GELU(), nn.ConvTranspose2d(width, width, 2, stride=2))
    ]
