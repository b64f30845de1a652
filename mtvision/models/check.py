"""Whether a config describes a network, without importing a part of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from mtvision.core.naming import Mistakes, UnknownNameError, gathering
from mtvision.core.registry.entries import check_section
from mtvision.core.task import Task
from mtvision.core.values import ByTask, Entry


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A network. A checkpoint's `architecture` has the same keys.

    Args:
        backbone: from image to feature maps.
        decoder: from feature maps to one map a task.
        adapters: changes to the backbone or the network, in this order.
        head: of every task without an entry in `heads`.
        heads: {task: head}.
        tasks: {task: channels} that an `architecture` was made for; configs leave it out.
    """

    backbone: Annotated[Mapping[str, Any], Entry("BACKBONES")]
    decoder: Annotated[Mapping[str, Any], Entry("DECODERS")]
    adapters: Sequence[Annotated[Mapping[str, Any], Entry("ADAPTERS")]] | None = None
    head: Annotated[Mapping[str, Any], Entry("HEADS")] | None = None
    heads: Annotated[Mapping[str, Annotated[Mapping[str, Any], Entry("HEADS")]], ByTask()] | None = None
    tasks: Mapping[str, int] | None = None


def check_model(cfg: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Any]:
    """Refuse a `model` that `build_network` cannot build; see there for what it may hold.

    Args:
        cfg: the config's `model`.
        tasks: what the network predicts.

    Returns:
        {task: config of its head}.

    Raises:
        TypeError: an argument is missing.
        UnknownNameError: a key, a type or an option does not exist.
        ValueError: a part or a head is missing, an option has the wrong type or range, or an `architecture`
            was made for other tasks.
        ConfigError: several of these.
    """
    with gathering("model") as found, found.at("model"):
        found.tasks = [task.name for task in tasks]
        check_section(found, cfg, ModelSettings)
        check_tasks_of_model(found, cfg, tasks)
    return heads_of(cfg, tasks)


def heads_of(cfg: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Any]:
    """{task: config of its head}, from `head` and `heads`."""
    common = {} if cfg.get("head") is None else {task.name: cfg["head"] for task in tasks}
    return {**common, **(cfg.get("heads") or {})}


def check_tasks_of_model(found: Mistakes, cfg: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    """Note what does not fit the tasks; the present key is that of the model.

    Args:
        found: collects.
        cfg: the config's `model`.
        tasks: what the network predicts.
    """
    made_for, given = cfg.get("tasks"), {task.name: task.out_channels for task in tasks}
    with found.at("tasks"):
        if not given:
            raise ValueError("model: no tasks. Give at least one task of the protocol.")
        if isinstance(made_for, Mapping) and dict(made_for) != given:
            raise ValueError(
                f"model: this architecture predicts {dict(made_for)} (task: channels), but the tasks given "
                f"are {given}. Use the protocol and tasks it was trained with."
            )
    with found.at("heads"):
        if not found.below(found.key):
            check_heads(heads_of(cfg, tasks), given)


def check_heads(heads: Mapping[str, Any], tasks: Iterable[str]) -> None:
    """Every task has a head and every head a task.

    Raises:
        ValueError: a task has no head.
        UnknownNameError: a head belongs to no task.
    """
    names = list(tasks)
    for name in names:
        if name not in heads:
            raise ValueError(
                f"task '{name}' has no head (heads: {', '.join(heads) or 'none'}). "
                f"Add model.heads['{name}'], set model.head for all tasks, or leave the task out."
            )
    for name in heads:
        if name not in names:
            raise UnknownNameError("task with a head", name, names)
