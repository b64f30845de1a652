"""`Subset`: each task has its own weights in some blocks, and shares the rest (SubTuning)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import ByTask
from mtvision.models.adapters.weight_deltas.adapter import Changes, WeightDeltas
from mtvision.models.adapters.weight_deltas.layers import WeightDelta
from mtvision.models.backbones.backbone import Backbone


@ADAPTERS.register_module()
class Subset(WeightDeltas):
    """Fine-tunes a subset of blocks per task (SubTuning, Kaplun et al., 2023) on a frozen backbone.

    `greedy_blocks` finds the subsets. Blocks before the first own one are computed once for all tasks.

    Args:
        blocks: {task: names of the blocks that it has for itself}; a task that is not there has none.

    Raises:
        UnknownNameError: no such block, or no such task.
    """

    task_options = ("blocks",)

    def __init__(self, *, blocks: Annotated[Mapping[str, Sequence[str]], ByTask()]) -> None:
        self.blocks = {task: tuple(names) for task, names in blocks.items()}

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with own blocks."""
        names = backbone.block_names()
        self.check_tasks(list(self.blocks), [task.name for task in tasks], "blocks")
        for name in (name for own in self.blocks.values() for name in own):
            if name not in names:
                raise UnknownNameError("block in Subset.blocks", name, names)
        return super().apply(backbone, tasks)

    def changes(self, path: str, layer: nn.Module, tasks: Sequence[str]) -> Changes:
        """Changes of all parameters, for tasks that have the block for themselves."""
        own = dict(layer.named_parameters(recurse=False))
        return {
            task: {name: WeightDelta(item) for name, item in own.items()}
            for task in tasks
            if path.startswith(tuple(f"{block}." for block in self.blocks.get(task, ())))
        }
