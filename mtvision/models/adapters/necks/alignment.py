"""Alignment of tasks: a linear map of every location's features for each task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.models.adapters.necks.neck import Neck, NeckAdapter, OwnMaps
from mtvision.models.backbones.backbone import Backbone


class AlignmentMap(OwnMaps):
    """R_t x at every location, with one matrix R_t (channels, channels) per task, the identity at first.

    Args:
        channels: of the map.
        tasks: names.

    Attributes:
        maps: {task: 1x1 convolution}.
    """

    def __init__(self, channels: int, tasks: Sequence[str]) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({name: nn.Conv2d(channels, channels, 1, bias=False) for name in tasks})
        for name in tasks:
            nn.init.dirac_(self.maps[name].weight)  # type: ignore[arg-type]

    def forward(self, maps: dict[str, Tensor], task: str, memory: dict[str, Tensor]) -> Tensor:
        """The map (B, C, h, w) of `task`."""
        del memory
        aligned: Tensor = self.maps[task](maps[task])
        return aligned


@ADAPTERS.register_module()
class Alignment(NeckAdapter):
    """Alignment of tasks (Wu, Zhang and Ré, "Understanding and Improving Information Transfer", ICLR 2020).

    Tasks whose inputs differ in their covariance disturb one another in a shared module. So every task
    multiplies its inputs by a matrix R_t of its own, which is trained with the rest. Here R_t is a 1x1
    convolution without bias at every level, between the backbone and the decoder. The place and the identity
    at the start are ours. The other half of the paper, weights of tasks, is the balancer `PrincipalWeights`.

    >>> from mtvision.protocols.tasks import depth
    >>> from mtvision.testing.inputs import ToyBackbone
    >>> neck = Alignment().apply(ToyBackbone((4, 6), (4, 8)), [depth()])
    >>> [tuple(level.maps["depth"].weight.shape) for level in neck.neck]
    [(4, 4, 1, 1), (6, 6, 1, 1)]
    """

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The backbone with the maps behind it."""
        names = [task.name for task in tasks]
        return Neck(backbone, [AlignmentMap(width, names) for width in backbone.channels], names)
