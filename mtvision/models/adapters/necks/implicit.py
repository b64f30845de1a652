"""Implicit vectors: numbers per task and channel that are added to, or multiplied with, shared maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Factor
from mtvision.models.adapters.necks.neck import Neck, NeckAdapter, OwnMaps
from mtvision.models.backbones.backbone import Backbone


class Implicit(OwnMaps):
    """x + z or x·z with one z per task and channel.

    Args:
        channels: of the map.
        tasks: names.
        multiply: multiply instead of adding.
        spread: standard deviation of the start around 0, or around 1.
    """

    def __init__(self, channels: int, tasks: Sequence[str], *, multiply: bool, spread: float) -> None:
        super().__init__()
        self.multiply = multiply
        self.z = nn.ParameterDict(
            {name: nn.Parameter(float(multiply) + spread * torch.randn(channels)) for name in tasks}
        )

    def forward(self, maps: dict[str, Tensor], task: str, memory: dict[str, Tensor]) -> Tensor:
        """The map (B, C, h, w) of `task`."""
        del memory
        x, z = maps[task], self.z[task][:, None, None].to(maps[task].dtype)
        return torch.mul(x, z) if self.multiply else torch.add(x, z)


@ADAPTERS.register_module()
class ImplicitVectors(NeckAdapter):
    """Implicit knowledge of YOLOR (Wang et al., 2021), which YOLOR-based multi-task networks use.

    Args:
        mode: `add` or `multiply`.
        spread: standard deviation of the start. YOLOR has 0.02; with 0 a fresh one changes nothing.
    """

    def __init__(self, *, mode: Literal["add", "multiply"] = "add", spread: Factor = 0.0) -> None:
        self.mode, self.spread = mode, spread

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The backbone with vectors behind it."""
        names = [task.name for task in tasks]
        levels = [
            Implicit(width, names, multiply=self.mode == "multiply", spread=self.spread)
            for width in backbone.channels
        ]
        return Neck(backbone, levels, names)
