"""Layers that compute something else for each task, and what one forward pass remembers for them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from mtvision.core.context import current_context
from mtvision.core.naming import UnknownNameError

MEMORY = "mtvision.pass_memory"
"""Key in `Context.extra` of what the layers of one forward pass hand from one task to the next."""
IMAGE_SIZE = "mtvision.image_size"
"""Key in `Context.extra` of the (H, W) of the images of a forward pass."""
STACKED = "mtvision.stacked_tasks"
"""Key in `Context.extra` of the tasks whose states follow the shared one in a batch."""


class TaskConditioned:
    """Base of modules whose result depends on `Context.task`."""

    def depends_on_task(self) -> bool:
        """Whether this instance does; a block with such a module is run once per task."""
        return True


def is_conditioned(module: nn.Module) -> bool:
    """Whether a module, or one inside it, depends on the task."""
    return any(isinstance(item, TaskConditioned) and item.depends_on_task() for item in module.modules())


def pass_memory() -> dict[Any, Any] | None:
    """What this forward pass remembers; None outside a backbone with passes per task."""
    memory: dict[Any, Any] | None = current_context().extra.get(MEMORY)
    return memory


def image_size() -> tuple[int, int]:
    """(H, W) of the images of this forward pass, for layers that see tokens only.

    Raises:
        RuntimeError: outside a backbone with passes per task.
    """
    size: tuple[int, int] | None = current_context().extra.get(IMAGE_SIZE)
    if size is None:
        raise RuntimeError("image_size: no backbone with passes per task is running. Call the backbone.")
    return size


def stacked_tasks() -> tuple[str, ...]:
    """Tasks whose states follow the shared one in the batch of this pass, in parts of one size."""
    tasks: tuple[str, ...] = current_context().extra.get(STACKED, ())
    return tasks


def current_task(known: Collection[str], user: str) -> str:
    """The task that a pass is computed for.

    Args:
        known: tasks with a route.
        user: the module that asks, for the message.

    Raises:
        ValueError: the pass is of no task.
        UnknownNameError: the task has no route.
    """
    task = current_context().task
    names = list(known)
    if task is None:
        raise ValueError(
            f"{user}: this pass is of no task, so it has no route. Read the pyramids of a network, or give "
            f"one: `with network.context(task='{names[0]}')`."
        )
    if task not in names:
        raise UnknownNameError(f"task with a route in {user}", task, names)
    return task
