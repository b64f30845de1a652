"""InvPT (Ye and Xu, ECCV 2022, arXiv 2203.07997): an inverted pyramid of attention over all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from mtvision.core.output import Auxiliary, DecoderOutput
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Factor, Positive
from mtvision.models.declarations import SHARED, Declaration
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.decoders.invpt_attention import HEADS, Message
from mtvision.models.decoders.invpt_stage import InvPTStage
from mtvision.models.heads.output import as_convolution
from mtvision.models.layers import ConvNorm, resize
from mtvision.models.layers.enlarged import convolved

DEAD = (
    "norm_mt",
    "redu_chan.0",
    "invpt_stages.0.blocks.0.attn.fuse_attn",
    "scale_embed.2",
)
"""Modules of the official decoder that nothing reads; not here, see `mtvision.models.convert.invpt`."""

STAGES = 3


@DECODERS.register_module()
class InvPTDecoder(Decoder):
    """Preliminary decoders per task, then three stages of attention over the positions of all tasks.

    On a plain ViT this is the official decoder, layer for layer. Its maps are halved for the first stage. The
    second and first level join the second and third stage. On a pyramid whose strides double (Swin), the
    coarsest level starts as it is and the next finer ones join. That part is inferred, because no code or
    text of it is public.

    Every task needs all others up to the last stage, so asking for fewer saves only their last convolutions.

    Args:
        channels: of each pyramid level (supplied); at least three levels.
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied); their order belongs to the weights.
        width: channels of the first stage, halved in each of the next two, and of the features.
        hidden: channels of the preliminary decoders' last layer.
        deep_supervision: weight of the preliminary predictions' loss.
        most_scores: attention logits of one image in memory at once, e.g. 4000000; None = all, whose number
            grows with the square of the image. The result is the same to rounding.

    Raises:
        ValueError: strides neither equal nor doubling, or a width that cannot be halved twice into heads.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        width: Positive = 576,
        hidden: Positive = 512,
        deep_supervision: Factor = 1.0,
        most_scores: Positive | None = None,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        self.flat = _is_flat(self.strides)
        if width % (4 * HEADS) or width < 4 * HEADS:
            raise ValueError(f"InvPTDecoder: width={width}; give a multiple of {4 * HEADS}.")
        names = [task.name for task in tasks]
        coarse, self.deep_supervision = self.channels[-1], deep_supervision
        self.preliminary = nn.ModuleDict(
            {name: nn.Sequential(ConvNorm(coarse, coarse), ConvNorm(coarse, hidden)) for name in names}
        )
        self.predict = nn.ModuleDict({task.name: nn.Conv2d(hidden, task.out_channels, 1) for task in tasks})
        self.mix = nn.ModuleDict(
            {task.name: nn.Conv2d(hidden + task.out_channels, width, 1) for task in tasks}
        )
        self.joining = (1, 0) if self.flat else (len(self.channels) - 2, len(self.channels) - 3)
        self.skips = nn.ModuleList(
            self._skip(index, width // 2 ** (place + 1)) for place, index in enumerate(self.joining)
        )
        self.stages = nn.ModuleList(
            InvPTStage(names, i, width // 2 ** max(i - 1, 0), width // 2**i, width, most_scores)
            for i in range(STAGES)
        )
        self.project = nn.ModuleDict({name: Project(width) for name in names})
        self.out_channels = dict.fromkeys(names, width)
        self.stages.apply(_initialise)

    def declaration(self) -> Declaration:
        """Positions of all tasks attend to one another, so all are as wide."""
        return Declaration(parts=dict.fromkeys(("mix", "skips", "stages"), SHARED))

    def recomputed(self) -> list[str]:
        """Also the attention and the MLP, which tasks share."""
        stages = range(len(self.stages))
        return [*super().recomputed(), *(f"stages.{i}.{name}" for i in stages for name in ("attn", "mlp"))]

    def output_layers(self, task: str) -> list[nn.Conv2d]:
        """Of deep supervision."""
        return [as_convolution(self.predict[task])]

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, width, h, w) at eight times the resolution of the first stage."""
        asked = [task.name for task in self.asked(tasks)]
        maps, auxiliary = self._start(pyramid, asked)
        height, width = size_of(next(iter(maps.values())))
        size = (8 * height, 8 * width)
        message: Message | None = None
        parts: dict[str, list[Tensor]] = {name: [] for name in asked}
        for index, stage in enumerate(cast(Sequence[InvPTStage], self.stages)):
            maps, message = stage(maps, self._joined(pyramid, index, maps), message)
            for name, part in stage.parts(maps, asked).items():
                parts[name].append(part)
        features = {name: self.project[name](parts[name], size, self._outs(name)) for name in asked}
        return DecoderOutput(features, auxiliary)

    def _outs(self, name: str) -> list[nn.Module | None]:
        """The convolution of a task's part of each stage; the first stage has none."""
        stages = cast(Sequence[InvPTStage], self.stages)
        return [dict(stage.out.items()).get(name) for stage in stages]

    def _start(self, pyramid: Pyramid, asked: Sequence[str]) -> tuple[dict[str, Tensor], list[Auxiliary]]:
        """Every task's first map, and preliminary logits of those asked for, in training."""
        maps: dict[str, Tensor] = {}
        auxiliary: list[Auxiliary] = []
        for task in self.tasks:
            coarse = pyramid.for_task(task.name).maps[-1]
            if self.flat:
                height, width = (max(side // 2, 1) for side in size_of(coarse))
                coarse = resize(coarse, (height, width))
            hidden = self.preliminary[task.name](coarse)
            logits = self.predict[task.name](hidden)
            maps[task.name] = self.mix[task.name](torch.cat([hidden, logits], dim=1))
            if self.training and task.name in asked:
                auxiliary.append(Auxiliary(task.name, logits, self.deep_supervision))
        return maps, auxiliary

    def _joined(self, pyramid: Pyramid, index: int, maps: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """What joins stage `index` from the backbone, twice as fine as `maps`; tasks share it if they can."""
        if index == 0:
            return None
        known: dict[int, Tensor] = {}
        found = {}
        for name, feature in maps.items():
            own = pyramid.for_task(name)
            if id(own) not in known:
                level = own.maps[self.joining[index - 1]]
                height, width = (2 * side for side in size_of(feature))
                known[id(own)] = resize(self.skips[index - 1](level), (height, width))
            found[name] = known[id(own)]
        return found

    def _skip(self, level: int, width: int) -> nn.Module:
        """A convolution of a level; a flat pyramid's finest is enlarged."""
        channels = self.channels[level]
        if self.flat and level == 0:
            return nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1)
        return nn.Conv2d(channels, width, 3, padding=1)


def _is_flat(strides: Sequence[int]) -> bool:
    doubling = all(after == 2 * before for before, after in pairwise(strides))
    if len(strides) >= STAGES and (doubling or len(set(strides)) == 1):
        return not doubling
    raise ValueError(
        f"InvPTDecoder: needs {STAGES} or more levels whose strides double or are all equal, got "
        f"{tuple(strides)}. Choose levels of the backbone accordingly."
    )


class Project(nn.Sequential):
    """3x3 convolution, batch norm and ReLU of the sum of all stages' parts at the finest size."""

    def __init__(self, width: int) -> None:
        conv = nn.Conv2d(width, width, 3, padding=1)
        nn.init.trunc_normal_(conv.weight, std=0.02)
        super().__init__(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(  # type: ignore[override]
        self, parts: Sequence[Tensor], size: tuple[int, int], outs: Sequence[nn.Module | None]
    ) -> Tensor:
        """Features (B, width, H, W) from parts (B, C, h, w), each with its 1x1 convolution to `width`."""
        conv, norm, activation = self
        return cast(Tensor, activation(norm(convolved(conv, parts, size, outs))))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
