"""`Subset`: each task has its own weights in some blocks, and shares the rest (SubTuning)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from mtvision.core.files.json_file import read_json
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

    `SubTuningSearcher` finds the subsets. Blocks before the first own one are computed once for all tasks.

    Args:
        blocks: {task: names of the blocks that it has for itself}, or the file that `mtvision search` wrote.
            A task that is not there has none. The checkpoint holds the blocks themselves.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no blocks.
        UnknownNameError: no such block, or no such task.
    """

    task_options = ("blocks",)

    def __init__(self, *, blocks: Annotated[Mapping[str, Sequence[str]], ByTask()] | str) -> None:
        found = _read(Path(blocks)) if isinstance(blocks, str) else blocks
        self.blocks = {task: tuple(names) for task, names in found.items()}

    def plain(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config with the blocks in place of the file."""
        return {**config, "blocks": {task: list(names) for task, names in self.blocks.items()}}

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


def _read(file: Path) -> Mapping[str, Sequence[str]]:
    """The blocks in the result of a search."""
    if not file.is_file():
        raise FileNotFoundError(
            f"Subset.blocks: {file} does not exist. Search it with `mtvision search` (SubTuningSearcher), "
            "or write the blocks into the config."
        )
    found = read_json(file)
    blocks = found.get("blocks") if isinstance(found, Mapping) else None
    if not isinstance(blocks, Mapping) or not all(isinstance(names, list) for names in blocks.values()):
        raise ValueError(
            f"Subset.blocks: {file} holds no blocks per task. Is it the result of another search?"
        )
    return blocks
