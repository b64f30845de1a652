"""A backbone whose blocks branch according to a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from mtvision.architecture.tree import Tree
from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.branching.paths import PathBackbone, refuse_shared_decoder
from mtvision.models.network import Network


class BranchedEncoder(PathBackbone):
    """One copy of a level for each group of tasks; all copies start with the backbone's weights.

    Args:
        backbone: any backbone that is cut into blocks.
        tree: which tasks share which level.

    Raises:
        ValueError: the tree was made for another number of blocks.
    """

    def __init__(self, backbone: Backbone, tree: Tree) -> None:
        count = len(backbone.block_names())
        if sum(tree.blocks) != count:
            raise ValueError(
                f"branching: the tree has {sum(tree.blocks)} blocks, {type(backbone).__name__} has {count}. "
                "Use the tree with the backbone it was searched for."
            )
        super().__init__(
            backbone, tuple(accumulate(tree.blocks)), [len(level) for level in tree.levels], tree.tasks
        )
        self.tree = tree

    def forward(self, image: Tensor) -> Pyramid:
        """Pyramids of the tasks that will be read."""
        return self.run_paths(image, {name: self.tree.path(name) for name in self.asked_tasks()})


@ADAPTERS.register_module()
class Branched(Adapter):
    """Turns a backbone into one that branches; tasks get pyramids of their own.

    Args:
        tree: `Tree.to_plain()`, or the file that `tools/search.py` wrote. The checkpoint holds the tree
            itself, so the file is needed only to start training.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no valid tree.
    """

    def __init__(self, tree: Mapping[str, Any] | str | Path) -> None:
        if isinstance(tree, Mapping) and "of_phase" in tree:
            raise ValueError(
                f"Branched: phase '{tree['of_phase']}' finds the tree while the config is trained. Give the "
                "file that it wrote, or a checkpoint of the run."
            )
        self.tree = Tree.from_plain(tree) if isinstance(tree, Mapping) else Tree.load(tree)

    def plain(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config with the tree in place of the file."""
        return {**config, "tree": self.tree.to_plain()}

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The branched encoder, of the network's tasks alone.

        Raises:
            ValueError: a task of the network is not in the tree, or the tree has other blocks than the
                backbone.
        """
        names = [task.name for task in tasks]
        lacking = [name for name in names if name not in self.tree.tasks]
        if lacking:
            raise ValueError(
                f"branching: the tree has no {', '.join(lacking)}; its tasks are "
                f"{', '.join(self.tree.tasks)}. Search with the tasks that are trained."
            )
        paths = {name: self.tree.path(name) for name in names}
        return BranchedEncoder(backbone, Tree.from_paths(paths, self.tree.blocks))

    def complete(self, network: Network) -> None:
        """Refuse a decoder that needs one pyramid for all tasks."""
        refuse_shared_decoder(network, type(self).__name__)
