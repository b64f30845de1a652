"""A level of a backbone as a module of its own, so that a network can hold several copies of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mtvision.core.pyramid import size_of
from mtvision.core.shapes import RememberedShapes
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.modes import evaluating
from mtvision.ops.flops import count_flops

Maps = dict[int, Tensor]
"""{pyramid level: map}."""


class Node(nn.Module):
    """The blocks `start` to `end` of a backbone and the pyramid levels that are read among them.

    Holds a copy of the backbone without the parameters and buffers that this node does not use. Names inside
    it are those of the backbone. The first node runs the stem too.

    Args:
        backbone: is copied, weights included.
        start: first block.
        end: one past the last block.
        exits_use: from `exit_parameters(backbone)`.
    """

    def __init__(self, backbone: Backbone, start: int, end: int, exits_use: Sequence[set[str]]) -> None:
        super().__init__()
        names = backbone.block_names()
        self.names = names[start:end]
        self.first = start == 0
        self.levels = {
            level: position - start
            for level, position in enumerate(backbone.exits)
            if start < position <= end or (self.first and position == 0)
        }
        wanted = {key for level in self.levels for key in exits_use[level]}
        exits = set().union(*exits_use)

        def keeps(key: str) -> bool:
            if any(key.startswith(f"{name}.") for name in names):
                return any(key.startswith(f"{name}.") for name in self.names)
            return key in wanted or (self.first and key not in exits)

        self.part: Backbone = copy.deepcopy(backbone, _without(backbone, keeps))

    def forward(self, state: Tensor, size: tuple[int, int]) -> tuple[Tensor, Maps]:
        """State after this node and the maps of its pyramid levels.

        Args:
            state: image (B, 3, H, W) for the first node, else the state after the node before.
            size: (H, W) of the image.
        """
        maps: Maps = {}
        for position, value in enumerate(self._states(state)):
            state = value
            for level, taken_at in self.levels.items():
                if taken_at == position:
                    maps[level] = self.part.to_map(value, level, size)
        return state, maps

    def block_paths(self) -> list[str]:
        """Paths of its blocks inside the node."""
        return [f"part.{name}" for name in self.names]

    def _states(self, state: Tensor) -> Iterator[Tensor]:
        if self.first:
            state = self.part.stem(state)
        yield state
        for name in self.names:
            state = self.part.run_block(self.part.get_submodule(name), state)
            yield state


def _without(backbone: Backbone, keeps: Callable[[str], bool]) -> dict[int, Any]:
    """Memo for `deepcopy` that leaves out what is not kept.

    Blocks and batch norms are removed as a whole, because an empty batch norm could not be loaded from a
    checkpoint. Of other modules only the tensors are removed, because `to_map` may read their attributes.
    """
    tensors = dict((*backbone.named_parameters(), *backbone.named_buffers()))
    memo: dict[int, Any] = {id(item): None for key, item in tensors.items() if not keeps(key)}
    blocks = set(backbone.block_names())
    for path, module in backbone.named_modules():
        if path not in blocks and not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        inside = [key for key in tensors if key.startswith(f"{path}.")]
        if inside and not any(map(keeps, inside)):
            memo[id(module)] = nn.Identity()
    return memo


def exit_parameters(backbone: Backbone) -> list[set[str]]:
    """For each pyramid level, the parameters and buffers that `to_map` reads and no block holds.

    Found by a dry run without values.
    """
    trace = _ExitTrace(backbone)
    tensors = (*trace.named_parameters(), *trace.named_buffers())
    empty = {name: torch.empty_like(item, device="meta") for name, item in tensors}
    names = {id(item): name.removeprefix("backbone.") for name, item in empty.items()}
    side = max(128, 8 * backbone.size_multiple)
    with torch.no_grad(), evaluating(backbone), RememberedShapes():
        read = functional_call(trace, empty, (torch.empty(1, 3, side, side, device="meta"),))
    blocks = tuple(f"{name}." for name in backbone.block_names())
    return [
        {names[item] for item in level if item in names and not names[item].startswith(blocks)}
        for level in read
    ]


class _ExitTrace(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> list[set[int]]:
        backbone, size = self.backbone, size_of(image)
        states = list(backbone._states(image))
        read = []
        for level, position in enumerate(backbone.exits):
            with _Reads() as mode:
                backbone.to_map(states[position], level, size)
            read.append(mode.seen)
        return read


class _Reads(TorchFunctionMode):
    """Notes every tensor that a torch function is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        self.seen |= {id(item) for item in leaves if isinstance(item, Tensor)}
        return func(*args, **(kwargs or {}))


def node_macs(nodes: Sequence[Node], size: tuple[int, int]) -> list[int]:
    """Multiply-accumulates of each of a chain of nodes, for one image of `size`; counted without values."""
    state = torch.empty(1, 3, *size, device="meta")
    counts = []
    for node in nodes:
        shell = copy.deepcopy(node).to("meta").eval()
        kept: list[Tensor] = []

        def run(shell: Node = shell, state: Tensor = state, kept: list[Tensor] = kept) -> None:
            kept.append(shell(state, size)[0])

        with torch.no_grad():
            counts.append(count_flops(run).get("Global", 0) // 2)
        state = kept[0]
    return counts
