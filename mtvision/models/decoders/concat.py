"""The plainest decoder: levels side by side, everything else is the head's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.layers import resize


def concat_levels(maps: Sequence[Tensor]) -> Tensor:
    """All maps, resized bilinearly to the first and concatenated along channels."""
    size = size_of(maps[0])
    return torch.cat([resize(item, size) for item in maps], dim=1)


@DECODERS.register_module()
class ConcatDecoder(Decoder):
    """Chosen levels, resized to the finest of them and concatenated. It has no parameters.

    With `HighResolutionHead` on HRNet, or with `DeepLabHead` and `levels=[-1]` on a dilated ResNet, this is
    the multi-decoder network of the survey (Vandenhende et al., TPAMI 2021). With one task it is the survey's
    single-task network.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        levels: indices of the levels, fine to coarse, negative ones from the coarsest; None for all.

    Raises:
        ValueError: a level does not exist, or the order is not fine to coarse.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        levels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        count = len(self.channels)
        given = list(range(count)) if levels is None else [int(index) for index in levels]
        self.levels = [index + count if index < 0 else index for index in given]
        if (
            not given
            or self.levels != sorted(set(self.levels))
            or not 0 <= self.levels[0] <= self.levels[-1] < count
        ):
            raise ValueError(
                f"ConcatDecoder: levels={given}; give rising indices from 0 to {count - 1}, "
                "or negative ones from the coarsest."
            )
        total = sum(self.channels[index] for index in self.levels)
        self.out_channels = {task.name: total for task in tasks}

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, sum of channels, h, w) at the finest chosen level."""
        features = {}
        for task in self.asked(tasks):
            maps = pyramid.for_task(task.name).maps
            features[task.name] = concat_levels([maps[index] for index in self.levels])
        return DecoderOutput(features)
