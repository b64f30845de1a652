"""Medusa: tasks attend to shared maps, and mix scales by attention; they exchange nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.declarations import FIXED, Declaration, Part
from mtvision.models.declarations.declaration import Runs
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.layers import ConvNorm, resize


class MultiScaleAttention(nn.Module):
    """Masks on the shared maps of every scale, then a weighted sum of the scales at each pixel.

    Args:
        channels: of each map, fine to coarse.
        width: channels of the result.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.masks = nn.ModuleList(
            nn.Sequential(ConvNorm(count, count), nn.Conv2d(count, count, 1), nn.Sigmoid())
            for count in channels
        )
        self.refine = nn.ModuleList(
            nn.Sequential(ConvNorm(count, width), ConvNorm(width, width)) for count in channels
        )
        scales = len(channels)
        self.scales = nn.Sequential(ConvNorm(scales * width, width), nn.Conv2d(width, scales, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, width, h, w) at the finest level."""
        size = size_of(maps[0])
        refined = [
            resize(refine(mask(item) * item), size)
            for mask, refine, item in zip(self.masks, self.refine, maps, strict=True)
        ]
        weights = self.scales(torch.cat(refined, dim=1)).softmax(dim=1)
        mixed: Tensor = (weights[:, :, None] * torch.stack(refined, dim=1)).sum(dim=1)
        return mixed


@DECODERS.register_module()
class MedusaDecoder(Decoder):
    """Medusa (Spencer et al., CVPRW 2022), from its abstract: shared-feature and multi-scale attention.

    Neither text nor code could be had, so that layers are ours. Tasks are independent of one another: a new
    one can be trained on a frozen backbone.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        width: channels of a task's maps.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        width: Positive = 256,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        self.out_channels = {task.name: width for task in tasks}
        self.attention = nn.ModuleDict({task.name: MultiScaleAttention(channels, width) for task in tasks})

    def declaration(self) -> Declaration:
        """Masks are as wide as the maps that they are multiplied with; scales have one weight per level."""
        one_width = len(set(self.strides)) < len(self.strides)  # the levels of a ViT
        writes: dict[str, Runs] = {}
        for name in self.attention:
            for level, _ in enumerate(self.strides):
                stage = Part("stage", 0 if one_width else level)
                writes[f"attention.{name}.masks.{level}.1"] = stage
            writes[f"attention.{name}.scales.1"] = FIXED
        return Declaration(writes=writes)

    def reads(self, tasks: Sequence[str] | None) -> Sequence[str] | None:
        """Only the maps of the tasks asked for."""
        return tasks

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, width, h, w) at the finest level."""
        features = {
            task.name: self.attention[task.name](pyramid.for_task(task.name).maps)
            for task in self.asked(tasks)
        }
        return DecoderOutput(features)
