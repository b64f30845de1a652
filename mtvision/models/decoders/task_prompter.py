"""TaskPrompter (Ye and Xu, ICLR 2023): features of a task gated by what its prompt looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mtvision.core.naming import look_up
from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.declarations import SHARED, Declaration, Declares
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.layers import enlarge, resize
from mtvision.models.layers.prompts import PromptLogits, PromptPyramid


@DECODERS.register_module()
class TaskPrompterDecoder(Decoder):
    """Gates every level with the prompts' logits, fuses both gated maps, sums the levels.

    Needs the adapter `TaskPrompts` on the backbone. Without `reweight` a task reads nothing of another here,
    so asking for fewer computes fewer.

    Args:
        channels: of each pyramid level (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        width: channels of a gated map.
        out_width: channels after fusing, and of the features.
        reweight: heads of the backbone's attention, for cross-task reweighting: prompt-to-prompt logits
            become weights with which tasks add each other's maps. None for none.
        kernel: side of the fuse's last convolution.
        gate_upscale: enlargement of gated maps before their 1x1 convolution.
        upscale: enlargement of the sum of levels.
        smooth: a 3x3 convolution per task after the sum.

    Raises:
        ValueError: `kernel` is even.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        width: Positive = 768,
        out_width: Positive = 768,
        reweight: Positive | None = None,
        kernel: Positive = 1,
        gate_upscale: Positive = 1,
        upscale: Positive = 4,
        smooth: bool = False,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        if kernel % 2 == 0:
            raise ValueError(f"TaskPrompterDecoder: kernel={kernel}; an even one shifts the map.")
        names = [task.name for task in tasks]
        self.upscale = upscale
        self.out_channels = dict.fromkeys(names, out_width)
        self.levels = nn.ModuleList(
            PromptedLevel(names, count, width, out_width, reweight, kernel, gate_upscale)
            for count in self.channels
        )
        self.smooth = nn.ModuleDict(
            {name: nn.Conv2d(out_width, out_width, 3, padding=1) for name in names if smooth}
        )

    def declaration(self) -> Declaration:
        """One pyramid serves all tasks."""
        return Declaration(cannot_branch="the prompts of all tasks look at one map")

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, out_width, h, w), on the first level's grid times `gate_upscale` and `upscale`.

        Raises:
            TypeError: the pyramid comes without prompts.
        """
        if not isinstance(pyramid, PromptPyramid):
            raise TypeError(
                f"TaskPrompterDecoder: got a {type(pyramid).__name__} without prompts. Add "
                "dict(type='TaskPrompts') to model.adapters."
            )
        asked = [task.name for task in self.asked(tasks)]
        total: dict[str, Tensor] = {}
        for level, feature, logits in zip(
            cast(Sequence[PromptedLevel], self.levels), pyramid.maps, pyramid.logits, strict=True
        ):
            for name, item in level(feature, logits, pyramid.prompts, asked).items():
                total[name] = _added(total[name], item) if name in total else item
        return DecoderOutput({name: self._finish(name, item) for name, item in total.items()})

    def _finish(self, name: str, feature: Tensor) -> Tensor:
        feature = self.smooth[name](feature) if name in self.smooth else feature
        return enlarge(feature, self.upscale)


class PromptedLevel(nn.Module, Declares):
    """One level: spatial and channel gate, fuse, cross-task reweighting.

    Args:
        names: of the tasks.
        channels: of the level.
        width: of a gated map.
        out_width: of the result.
        reweight: heads, or None.
        kernel: side of the last convolution.
        gate_upscale: enlargement of gated maps.
    """

    def __init__(
        self,
        names: Sequence[str],
        channels: int,
        width: int,
        out_width: int,
        reweight: int | None,
        kernel: int,
        gate_upscale: int,
    ) -> None:
        super().__init__()
        self.names, self.gate_upscale = tuple(names), gate_upscale
        self.spatial = nn.ModuleDict({name: nn.Conv2d(channels, width, 1) for name in names})
        self.channel = nn.ModuleDict({name: nn.Conv2d(channels, width, 1) for name in names})
        self.fuse = nn.ModuleDict({name: _fuse(width, out_width, kernel) for name in names})
        self.weigh = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(reweight, reweight, 1), nn.GELU(), nn.Conv2d(reweight, 1, 1))
                for name in names
                if reweight is not None
            }
        )

    def declaration(self) -> Declaration:
        """Where prompts reweight tasks, the fused maps of all tasks are added up."""
        names = self.fuse if len(self.weigh) else ()
        return Declaration(parts={f"fuse.{name}.4": SHARED for name in names})

    def forward(
        self, feature: Tensor, logits: PromptLogits, prompts: Sequence[str], asked: Sequence[str]
    ) -> dict[str, Tensor]:
        """Maps (B, out_width, h, w) of the tasks asked for, from a level (B, C, h, w)."""
        places = {name: index for index, name in enumerate(prompts)}
        places = {name: look_up("task with a prompt", name, places) for name in self.names}
        needed = self.names if len(self.weigh) else asked
        fused = {name: self._fused(name, feature, logits, places[name]) for name in needed}
        if not len(self.weigh):
            return fused
        return {name: self._reweighted(name, fused, logits, places) for name in asked}

    def _fused(self, name: str, feature: Tensor, logits: PromptLogits, place: int) -> Tensor:
        gates = (
            (self.spatial, by_pixel(feature, logits.pixels[:, :, place])),
            (self.channel, by_channel(feature, logits.channels[:, place])),
        )
        both = [layers[name](enlarge(item, self.gate_upscale)) for layers, item in gates]
        return cast(Tensor, self.fuse[name](torch.cat(both, dim=1)))

    def _reweighted(
        self, name: str, fused: dict[str, Tensor], logits: PromptLogits, places: dict[str, int]
    ) -> Tensor:
        if logits.prompts is None:
            raise ValueError(
                "TaskPrompterDecoder: this backbone gives no prompt-to-prompt logits (prompts attend window "
                "by window); set reweight=None."
            )
        weights = self.weigh[name](logits.prompts[:, :, places[name] : places[name] + 1])
        terms = [weights[..., places[other], None] * item for other, item in fused.items()]
        return torch.stack(terms).sum(dim=0)


def by_pixel(feature: Tensor, logits: Tensor) -> Tensor:
    """Y + S * Y; (B, heads, h, w) logits gate the group of channels that belongs to their head."""
    grouped = feature.reshape(feature.shape[0], logits.shape[1], -1, *feature.shape[2:])
    return feature + (logits[:, :, None] * grouped).reshape(feature.shape)


def by_channel(feature: Tensor, logits: Tensor) -> Tensor:
    """Y + K * Y; (B, C, g, g) logits gate channels window by window."""
    batch, channels, height, width = feature.shape
    g = logits.shape[-1]
    windows = feature.reshape(batch, channels, g, height // g, g, width // g)
    return feature + (logits[:, :, :, None, :, None] * windows).reshape(feature.shape)


def _added(total: Tensor, item: Tensor) -> Tensor:
    return total + resize(item, size_of(total))


def _fuse(width: int, out_width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2 * width, out_width, 1),
        nn.Conv2d(out_width, out_width, 3, padding=1),
        nn.BatchNorm2d(out_width),
        nn.GELU(),
        nn.Conv2d(out_width, out_width, kernel, padding=kernel // 2),
    )
