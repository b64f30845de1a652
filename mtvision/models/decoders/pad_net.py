"""PAD-Net: predict every task once, exchange what was learned, predict again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mtvision.core.output import Auxiliary, DecoderOutput
from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Factor, Positive
from mtvision.models.decoders.concat import concat_levels
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.decoders.distillation import Distillation, helpers_for, split_helpers
from mtvision.models.heads.output import as_convolution
from mtvision.models.layers.residual import bottleneck


@DECODERS.register_module()
class PADNetDecoder(Decoder):
    """PAD-Net (Xu et al., CVPR 2018), as in the survey's code (Vandenhende et al., TPAMI 2021).

    All levels are concatenated at the finest and pass a 1x1 convolution of the same width. Per task two
    bottlenecks and a 1x1 convolution make an initial prediction, which is supervised. Every task then adds
    the gated features of all others (`Distillation`). The published head is `ResidualHead`.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        width: channels of every task's features, a multiple of 4.
        helpers: tasks with an initial prediction only. Their feature is the one before the exchange and their
            head (published: `ConvHead`) makes that prediction.
        initial_weight: of the initial predictions' losses.

    Raises:
        UnknownNameError: a helper is no task.
        ValueError: every task is a helper, or `width` is no multiple of 4.
    """

    @classmethod
    def for_tasks(
        cls, options: Mapping[str, Any], tasks: Sequence[str], absent: Collection[str]
    ) -> dict[str, Any]:
        """Without helpers that are absent."""
        return helpers_for(options, tasks, absent)

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        width: Positive = 256,
        helpers: Sequence[str] = (),
        initial_weight: Factor = 1.0,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        names, self.main = [task.name for task in tasks], split_helpers(tasks, helpers)
        self.initial_weight = initial_weight
        total = sum(self.channels)
        self.fuse = nn.Sequential(nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(inplace=True))
        self.initial = nn.ModuleDict(
            {name: nn.Sequential(bottleneck(total, width), bottleneck(width, width)) for name in names}
        )
        self.predict = nn.ModuleDict(
            {task.name: nn.Conv2d(width, task.out_channels, 1) for task in tasks if task.name in self.main}
        )
        self.distillation = Distillation(width, self.main, names)
        self.out_channels = dict.fromkeys(names, width)

    def output_layers(self, task: str) -> list[nn.Conv2d]:
        """Of deep supervision."""
        return [as_convolution(self.predict[task])] if task in self.predict else []

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, width, h, w) at the finest level's stride. Every task needs all initial features."""
        asked = [task.name for task in self.asked(tasks)]
        targets = [name for name in asked if name in self.main]
        needed = list(self.initial) if targets else asked
        first = {name: self.initial[name](fused) for name, fused in self._fused(pyramid, needed).items()}
        final = self.distillation(first, targets)
        auxiliary = []
        if self.training:
            auxiliary = [
                Auxiliary(name, self.predict[name](first[name]), self.initial_weight) for name in targets
            ]
        return DecoderOutput({name: final.get(name, first[name]) for name in asked}, auxiliary)

    def _fused(self, pyramid: Pyramid, names: Sequence[str]) -> dict[str, Tensor]:
        """Fused levels for each task, computed once for tasks that read the same maps."""
        read = {name: pyramid.for_task(name).maps for name in names}
        fused = {
            id(maps): self.fuse(concat_levels(maps)) for maps in {id(m): m for m in read.values()}.values()
        }
        return {name: fused[id(maps)] for name, maps in read.items()}
