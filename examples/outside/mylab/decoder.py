"""A decoder in which tasks exchange features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.layers import resize


@DECODERS.register_module()
class GatedDecoder(Decoder):
    """Every task adds the mean of all tasks' features to its own, through a gate per pixel.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        width: channels of each task's features.
    """

    def __init__(
        self, *, channels: Sequence[int], strides: Sequence[int], tasks: Sequence[Task], width: int = 32
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        self.out_channels = {task.name: width for task in tasks}
        self.levels = nn.ModuleDict(
            {task.name: nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels) for task in tasks}
        )
        self.gates = nn.ModuleDict({task.name: nn.Conv2d(width, width, 1) for task in tasks})

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, width, h, w) at the stride of the finest level."""
        own = {}
        for name, layers in self.levels.items():
            maps = pyramid.for_task(name).maps
            size = size_of(maps[0])
            levels = [resize(layer(item), size) for layer, item in zip(layers, maps, strict=True)]
            own[name] = torch.stack(levels).sum(dim=0)
        mean = torch.stack(list(own.values())).mean(dim=0)
        features = {}
        for task in self.asked(tasks):
            feature = own[task.name]
            features[task.name] = feature + self.gates[task.name](feature).sigmoid() * mean
        return DecoderOutput(features)
