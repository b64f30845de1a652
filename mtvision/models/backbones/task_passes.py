"""A backbone that is computed once up to the first block that differs between tasks, then per task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from mtvision.core.context import current_context, use_context
from mtvision.core.pyramid import Pyramid, TaskPyramids, size_of
from mtvision.models.declarations import Declaration
from mtvision.models.layers.conditioned import IMAGE_SIZE, MEMORY, STACKED, is_conditioned


class Backbone(Protocol):
    """What passes need of `mtvision.models.backbones.Backbone`, which imports this module."""

    exits: tuple[int, ...]
    strides: tuple[int, ...]
    task_passes: TaskPasses | None

    def stem(self, image: Tensor) -> Tensor:
        """State before the first block."""
        ...

    def block_names(self) -> list[str]:
        """Paths of the blocks."""
        ...

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """Map of a level."""
        ...

    def run_block(self, module: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
        """State after a block."""
        ...

    def get_submodule(self, target: str) -> nn.Module:
        """Module of a path."""
        ...

    def declaration(self) -> Declaration:
        """How it branches."""
        ...


@dataclass(frozen=True)
class TaskPasses:
    """How a backbone with task-conditioned layers is run.

    Where `Context.task` names a task, the whole backbone is computed for it and all decoders read that
    pyramid. Otherwise every task of `Context.tasks` gets a pyramid of its own.

    Args:
        tasks: names.
        side: False = a task's state passes through all later blocks. True = one shared state passes, and a
            task leaves it for single blocks at the end of a stage (MTLoRA, CVPR 2024).
        stacked: such a block runs once on the shared state and those of all tasks, which stand one behind
            the other in the batch. Its layers may then compute one from the others.
        base: task whose pass comes first, even unread; later passes may read what it left.
    """

    tasks: tuple[str, ...]
    side: bool = False
    stacked: bool = False
    base: str | None = None

    def run(self, backbone: Backbone, image: Tensor) -> Pyramid:
        """Pyramids of the tasks that will be read, of an image batch (B, 3, H, W)."""
        context = current_context()
        with remembering(size_of(image)):
            wanted = self.wanted()
            maps = (
                self._beside(backbone, image, wanted) if self.side else self._through(backbone, image, wanted)
            )
        pyramids = {name: Pyramid.of(maps[name], backbone.strides) for name in wanted}
        return pyramids[context.task] if context.task is not None else TaskPyramids(pyramids)

    def wanted(self) -> list[str]:
        """Tasks whose pyramids will be read, in order."""
        context = current_context()
        if context.task is not None:
            return [context.task]
        return [name for name in self.tasks if context.tasks is None or name in context.tasks]

    def _through(self, backbone: Backbone, image: Tensor, wanted: Sequence[str]) -> dict[str, list[Tensor]]:
        """Maps of every task, whose state is followed to the end."""
        levels = _Levels(backbone, image)
        blocks = [backbone.get_submodule(name) for name in backbone.block_names()]
        first = next((index for index, block in enumerate(blocks) if is_conditioned(block)), len(blocks))
        state = backbone.stem(image)
        common = levels.at(0, state)
        for position, block in enumerate(blocks[:first], start=1):
            state = backbone.run_block(_bound(block, None), state)
            common |= levels.at(position, state)
        found = {}
        lead = [] if self.base is None else [self.base]
        for name in [*lead, *(name for name in wanted if name != self.base)]:
            own, after = dict(common), state
            for position, block in enumerate(blocks[first:], start=first + 1):
                after = backbone.run_block(_bound(block, name), after)
                own |= levels.at(position, after)
            found[name] = [own[level] for level in sorted(own)]
        return found

    def _beside(self, backbone: Backbone, image: Tensor, wanted: Sequence[str]) -> dict[str, list[Tensor]]:
        """Maps of every task, which leaves the shared state for a block and does not come back."""
        levels = _Levels(backbone, image)
        with use_context(replace(current_context(), task=None)):
            state = backbone.stem(image)
            found = {name: levels.at(0, state) for name in wanted}
            for position, name in enumerate(backbone.block_names(), start=1):
                block = backbone.get_submodule(name)
                read = position in backbone.exits and is_conditioned(block)
                own: dict[str, Tensor] = {}
                if read and self.stacked:
                    state, own = self._stacked(backbone, block, state)
                else:
                    before, state = state, backbone.run_block(_bound(block, None), state)
                    if read:
                        own = {task: backbone.run_block(_bound(block, task), before) for task in wanted}
                shared = {} if read else levels.at(position, state)
                for task in wanted:
                    found[task] |= levels.at(position, own[task]) if read else shared
        return {task: [maps[level] for level in sorted(maps)] for task, maps in found.items()}

    def _stacked(
        self, backbone: Backbone, block: nn.Module, state: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The shared state and those of all tasks after a block that starts from one state for all."""
        context = current_context()
        with use_context(replace(context, extra={**context.extra, STACKED: self.tasks})):
            many = backbone.run_block(_bound(block, None), torch.cat([state] * (len(self.tasks) + 1)))
        after, *own = many.chunk(len(self.tasks) + 1)
        return after, dict(zip(self.tasks, own, strict=True))


class _Levels:
    """Maps of the levels that are read at a position.

    Args:
        backbone: has the exits.
        image: (B, 3, H, W).
    """

    def __init__(self, backbone: Backbone, image: Tensor) -> None:
        self.backbone = backbone
        self.size = size_of(image)

    def at(self, position: int, state: Tensor) -> dict[int, Tensor]:
        """{level: map} after `position` blocks."""
        read = (level for level, exit_ in enumerate(self.backbone.exits) if exit_ == position)
        return {level: self.backbone.to_map(state, level, self.size) for level in read}


def pass_per_task(
    backbone: Backbone,
    tasks: Sequence[str],
    *,
    side: bool,
    user: str,
    stacked: bool = False,
    base: str | None = None,
) -> None:
    """Let a backbone compute its task-conditioned blocks once per task.

    Args:
        backbone: changed in place.
        tasks: names.
        side: see `TaskPasses`.
        stacked: see `TaskPasses`.
        base: see `TaskPasses`.
        user: name of the adapter, for messages.

    Raises:
        ValueError: its maps cannot differ between tasks, or an adapter before needs the other kind of pass.
    """
    passes = TaskPasses(tuple(tasks), side, stacked, base)
    if backbone.task_passes not in (None, passes):
        raise ValueError(
            f"{user}: an adapter before runs the backbone another way per task (side={not side}). Take the "
            "same for both."
        )
    reason = backbone.declaration().cannot_branch if backbone.task_passes is None else ""
    if not backbone.exits or reason:
        raise ValueError(
            f"{user}: {type(backbone).__name__} cannot be computed per task: "
            f"{reason or 'it is not cut into blocks'}. Choose a backbone with blocks (docs/models.md), and "
            "put this adapter first."
        )
    backbone.task_passes = passes


def _bound(block: nn.Module, task: str | None) -> Callable[[Tensor], Tensor]:
    """The block in the context of a task, also when it is computed again in the backward pass."""
    context = replace(current_context(), task=task)

    def run(state: Tensor) -> Tensor:
        with use_context(context):
            after: Tensor = block(state)
        return after

    return run


@contextmanager
def remembering(size: tuple[int, int]) -> Iterator[None]:
    """Give layers a memory for one forward pass, and the (H, W) of its images, inside a `with` block."""
    context = current_context()
    with use_context(replace(context, extra={**context.extra, MEMORY: {}, IMAGE_SIZE: size})):
        yield
