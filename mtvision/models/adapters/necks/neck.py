"""A backbone whose maps pass a module before decoders read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from mtvision.core.context import current_context, use_context
from mtvision.core.pyramid import TaskPyramids
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.mtan import AttendedPyramids
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.network import Network


class NeckAdapter(Adapter):
    """Base of adapters that give every task maps of its own behind the backbone."""

    def complete(self, network: Network) -> None:
        """Refuse a decoder that reads one pyramid of all tasks."""
        refuse_shared_decoder(network, type(self).__name__)


class OwnMaps(nn.Module):
    """Base of modules that make the map of a task at one level.

    Attributes:
        mixes: it needs the maps of all tasks, whichever are read.
    """

    mixes: ClassVar[bool] = False

    def forward(self, maps: dict[str, Tensor], task: str, memory: dict[str, Tensor]) -> Tensor:
        """The map (B, C, h, w) of `task`.

        Args:
            maps: {task: what the backbone gives}, equal tensors where tasks share it; of `task` alone unless
                the module mixes.
            task: whose map is made.
            memory: empty in the first call of a forward pass; what later calls for other tasks may use.
        """
        raise NotImplementedError


class Neck(Backbone):
    """A backbone, and one module per level between it and the decoder.

    Args:
        backbone: gives the maps.
        levels: one module per level, fine to coarse.
        tasks: names.

    Attributes:
        shared: the backbone.
        neck: the modules.
    """

    def __init__(self, backbone: Backbone, levels: Sequence[OwnMaps], tasks: Sequence[str]) -> None:
        super().__init__()
        self.shared = backbone
        self.channels, self.strides = backbone.channels, backbone.strides
        self.size_multiple = backbone.size_multiple
        self.neck = nn.ModuleList(levels)
        self.task_names = tuple(tasks)

    def forward(self, image: Tensor) -> TaskPyramids:
        """Pyramids of an image batch (B, 3, H, W); a task's is computed when it is read."""
        context, mixes = current_context(), any(unit.mixes for unit in self.neck)
        if mixes and context.tasks:  # a backbone with passes per task then computes all of them
            context = replace(context, tasks=None)
        with use_context(context):
            shared = self.shared(image)
        memories: list[dict[str, Tensor]] = [{} for _ in self.neck]

        def own(name: str) -> list[Tensor]:
            pyramids = {task: shared.for_task(task) for task in (self.task_names if mixes else (name,))}
            return [
                unit({task: item.maps[level] for task, item in pyramids.items()}, name, memories[level])
                for level, unit in enumerate(self.neck)
            ]

        return AttendedPyramids(shared, self.task_names, own)

    def levels(self, image: Tensor) -> list[Tensor]:
        """Maps of the backbone."""
        return self.shared.levels(image)
