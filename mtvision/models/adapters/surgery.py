"""Representation Surgery: small units per task and scale that correct the features of a merged backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtvision.core.pyramid import TaskPyramids
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.mtan import AttendedPyramids
from mtvision.models.backbones.backbone import Backbone


class Correction(nn.Module):
    """z - W_2 ReLU(W_1 z) with 1x1 convolutions; W_2 starts at 0, so that a fresh one changes nothing.

    Args:
        channels: of z.
        rank: of the correction.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, rank, 1, bias=False)
        self.up = nn.Conv2d(rank, channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        corrected: Tensor = z - self.up(self.down(z).relu())
        return corrected


class CorrectedBackbone(Backbone):
    """A shared backbone with corrections of every map for every task.

    Args:
        backbone: shared.
        tasks: names.
        rank: of the corrections.

    Attributes:
        shared: the backbone.
        corrections: {task: one unit per map}.
    """

    def __init__(self, backbone: Backbone, tasks: Sequence[str], rank: int) -> None:
        super().__init__()
        self.shared = backbone
        self.channels, self.strides = backbone.channels, backbone.strides
        self.size_multiple = backbone.size_multiple
        self.corrections = nn.ModuleDict(
            {name: nn.ModuleList(Correction(width, rank) for width in self.channels) for name in tasks}
        )

    def forward(self, image: Tensor) -> TaskPyramids:
        """Corrected pyramids of an image batch (B, 3, H, W), computed for the tasks that are read."""
        shared = self.shared(image)

        def corrected(name: str) -> list[Tensor]:
            units: nn.ModuleList = self.corrections[name]  # type: ignore[assignment]
            return [unit(item) for unit, item in zip(units, shared.for_task(name).maps, strict=True)]

        return AttendedPyramids(shared, list(self.corrections), corrected)

    def levels(self, image: Tensor) -> list[Tensor]:
        """Shared maps."""
        return self.shared.levels(image)


@ADAPTERS.register_module()
class Surgery(Adapter):
    """Representation Surgery (Yang et al., ICML 2024): corrections z - W_2 ReLU(W_1 z) per task and scale.

    For merged backbones. `mtvision surgery` trains the corrections, so that features are those of the
    single-task networks.

    Args:
        rank: of a correction; 16 in the paper.
    """

    def __init__(self, *, rank: Positive = 16) -> None:
        self.rank = rank

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The backbone with corrections, which change nothing at first."""
        return CorrectedBackbone(backbone, [task.name for task in tasks], self.rank)
