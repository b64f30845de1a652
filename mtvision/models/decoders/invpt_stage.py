"""One stage of InvPT: enlarge every task's map, attend across all tasks, return features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from mtvision.models.decoders.invpt_attention import Message, TaskAttention
from mtvision.models.layers import resize


class InvPTStage(nn.Module):
    """Stage i of InvPT (Ye and Xu, ECCV 2022, section 3.3), on maps of every task.

    Args:
        names: of the tasks, in the order of the weights.
        index: 0, 1 or 2. Stages after the first enlarge maps by 2 and read the attention of the one before.
        channels: of the maps read.
        width: of the maps written and used for attention, even.
        out_width: channels that `out` makes of a task's part; the first stage has no `out`.
        most_scores: as in `TaskAttention`.
    """

    def __init__(
        self,
        names: Sequence[str],
        index: int,
        channels: int,
        width: int,
        out_width: int,
        most_scores: int | None = None,
    ) -> None:
        super().__init__()
        self.names, self.index = tuple(names), index
        self.up = nn.ModuleDict({name: _enlarge(channels, width) for name in names if index})
        self.norm1 = nn.LayerNorm(width)
        self.attn = TaskAttention(
            names, width, pool=2 ** (index + 1), fused=index > 0, most_scores=most_scores
        )
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.norm_tasks = nn.LayerNorm(len(self.names) * width)
        self.out = nn.ModuleDict({name: nn.Conv2d(width, out_width, 1) for name in names if index})

    def forward(
        self, maps: Mapping[str, Tensor], skips: Mapping[str, Tensor] | None, message: Message | None
    ) -> tuple[dict[str, Tensor], Message]:
        """Maps and attention logits of this stage.

        Args:
            maps: (B, channels, h, w) of every task.
            skips: (B, width, H, W) of every task, added after enlarging; the maps get that size.
            message: attention logits of the stage before, or what they are computed from.

        Returns:
            {task: (B, width, H, W)} and the next stage's message.
        """
        state = {name: self._entered(name, maps[name], skips) for name in self.names}
        height, width = next(iter(state.values())).shape[-2:]
        normed = {name: _last(self.norm1, item) for name, item in state.items()}
        update, message = self.attn(normed, message)
        for name in self.names:
            item = state[name] + resize(update[name], (height, width))
            tokens = item.permute(0, 2, 3, 1)
            state[name] = item + self.mlp(self.norm2(tokens)).permute(0, 3, 1, 2)
        return state, message

    def parts(self, maps: Mapping[str, Tensor], asked: Sequence[str]) -> dict[str, Tensor]:
        """What the stage contributes to the tasks asked for, normed over all tasks: (B, width, H, W).

        `out` of a task makes it `out_width` channels.
        """
        joined = _last(self.norm_tasks, torch.cat([maps[name] for name in self.names], dim=1))
        parts = dict(zip(self.names, joined.chunk(len(self.names), dim=1), strict=True))
        return {name: parts[name] for name in asked}

    def _entered(self, name: str, feature: Tensor, skips: Mapping[str, Tensor] | None) -> Tensor:
        if not self.index:
            return feature
        assert skips is not None  # the decoder gives them to every later stage
        height, width = skips[name].shape[-2:]
        return cast(Tensor, self.up[name](resize(feature, (height, width))) + skips[name])


def _last(norm: nn.Module, feature: Tensor) -> Tensor:
    """A LayerNorm over the channels of an NCHW map."""
    return cast(Tensor, norm(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def _enlarge(channels: int, width: int) -> nn.Sequential:
    """Two dilated convolutions; the map was enlarged before."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
