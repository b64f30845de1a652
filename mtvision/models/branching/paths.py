"""A backbone made of nodes: every task takes a path through them and gets its own pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from torch import Tensor, nn

from mtvision.core.context import current_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import Pyramid, TaskPyramids, size_of
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.branching.cuts import check_cuts
from mtvision.models.branching.node import Maps, Node, exit_parameters
from mtvision.models.network import Network

Paths = Mapping[str, tuple[int, ...]]
"""{task: index of its node at each level}."""


def cut_points(backbone: Backbone, cuts: str | Sequence[int]) -> tuple[int, ...]:
    """Number of blocks that have run at the end of each level.

    Args:
        backbone: its blocks are cut.
        cuts: `stages` (after every pyramid level), `blocks` (after every block), or the positions between
            levels as rising numbers of blocks. The end is optional.

    Raises:
        ValueError: positions that are not rising or outside the backbone.
        UnknownNameError: another word.
    """
    count = len(backbone.block_names())
    if cuts == "stages":
        chosen = sorted({position for position in backbone.exits if position})
    elif cuts == "blocks":
        chosen = list(range(1, count + 1))
    elif isinstance(cuts, str):
        raise UnknownNameError("way to cut a backbone", cuts, ("stages", "blocks"))
    else:
        chosen = [int(item) for item in cuts]
    if not chosen or chosen[-1] != count:
        chosen = [*chosen, count]
    if chosen != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] > count:
        raise ValueError(
            f"branching: cuts={cuts}; give rising numbers of blocks from 1 to {count - 1} ({count} in all)."
        )
    return tuple(chosen)


def refuse_shared_decoder(network: Network, user: str) -> None:
    """A decoder that reads one pyramid of all tasks does not fit a backbone with maps of their own for tasks.

    Args:
        network: finished.
        user: the adapter that gives tasks maps of their own.

    Raises:
        ValueError: names both.
    """
    reason = network.decoder.declaration().cannot_branch
    if reason:
        raise ValueError(
            f"{type(network.decoder).__name__} reads one pyramid that all tasks share, but with {user} every "
            f"task has its own: {reason}. Leave {user} out of model.adapters, or take another decoder."
        )


class PathBackbone(Backbone):
    """Base of branched encoders and supernets.

    Only nodes on the path of a task that the decoder will read (`Context.tasks`) are run, each once.

    Args:
        backbone: is copied into the nodes.
        ends: number of blocks that have run at the end of each level.
        copies: number of nodes per level, all alike in the beginning.
        tasks: names.

    Raises:
        ValueError: the backbone gives decoders more than maps, or is cut inside a residual connection.
    """

    def __init__(
        self, backbone: Backbone, ends: Sequence[int], copies: Sequence[int], tasks: Sequence[str]
    ) -> None:
        super().__init__()
        reason = backbone.declaration().cannot_branch
        if reason:
            raise ValueError(
                f"branching: {type(backbone).__name__} cannot branch: {reason}. Leave one of the two out of "
                "model.adapters."
            )
        check_cuts(backbone)
        self.channels, self.strides = backbone.channels, backbone.strides
        self.size_multiple = backbone.size_multiple
        self.task_names = tuple(tasks)
        self.ends = tuple(ends)
        starts = (0, *self.ends[:-1])
        uses = exit_parameters(backbone)
        self.nodes = nn.ModuleList(
            nn.ModuleList(Node(backbone, start, end, uses) for _ in range(count))
            for start, end, count in zip(starts, self.ends, copies, strict=True)
        )

    @property
    def block_counts(self) -> tuple[int, ...]:
        """Blocks per level."""
        return tuple(end - start for start, end in zip((0, *self.ends[:-1]), self.ends, strict=True))

    def block_depths(self) -> dict[str, int]:
        """{path of a block: its position in the original backbone}."""
        starts = (0, *accumulate(self.block_counts))
        return {
            f"nodes.{level}.{index}.{path}": start + offset
            for level, (nodes, start) in enumerate(zip(self._grid(), starts, strict=False))
            for index, node in enumerate(nodes)
            for offset, path in enumerate(node.block_paths())
        }

    def asked_tasks(self) -> list[str]:
        """Tasks whose pyramids will be read, in order."""
        wanted = current_context().tasks
        return [name for name in self.task_names if wanted is None or name in wanted]

    def run_paths(self, image: Tensor, paths: Paths) -> TaskPyramids:
        """One pyramid per task; what paths have in common from the start is computed once."""
        size = size_of(image)
        done: dict[tuple[int, ...], tuple[Tensor, Maps]] = {(): (image, {})}
        pyramids = {}
        for name, path in paths.items():
            for level in range(len(path)):
                prefix = path[: level + 1]
                if prefix not in done:
                    state, maps = done[path[:level]]
                    state, own = self.node(level, path[level])(state, size)
                    done[prefix] = (state, {**maps, **own})
            pyramids[name] = self.pyramid(done[tuple(path)][1])
        return TaskPyramids(pyramids)

    def pyramid(self, maps: Maps) -> Pyramid:
        """Side exits in the order of the levels."""
        return Pyramid.of([maps[level] for level in range(len(self.strides))], self.strides)

    def node(self, level: int, index: int) -> Node:
        """One node."""
        found: Node = self._grid()[level][index]
        return found

    def node_chain(self) -> list[Node]:
        """The first node of every level."""
        return [nodes[0] for nodes in self._grid()]

    def _grid(self) -> list[list[Node]]:
        return [list(nodes) for nodes in self.nodes]  # type: ignore[call-overload]
