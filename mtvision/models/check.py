"""Whether a config describes a network, without importing a part of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtvision.core.naming import UnknownNameError, within
from mtvision.core.registry import ADAPTERS, BACKBONES, DECODERS, HEADS
from mtvision.core.task import Task

KEYS = ("backbone", "adapters", "decoder", "head", "heads", "tasks")


def check_model(cfg: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Any]:
    """Refuse a `model` that `build_network` cannot build; see there for what it may hold.

    Args:
        cfg: the config's `model`.
        tasks: what the network predicts.

    Returns:
        {task: config of its head}.

    Raises:
        TypeError: a part is missing.
        UnknownNameError: a key, a type or an option does not exist.
        ValueError: a task has no head, an `architecture` was made for other tasks, or an option has the wrong
            type or range.
    """
    for key in cfg:
        if key not in KEYS:
            raise UnknownNameError("key of model", key, KEYS)
    for key in ("backbone", "decoder"):
        if key not in cfg:
            raise TypeError(f"model: the key '{key}' is missing (given: {', '.join(cfg) or 'nothing'}).")
    _check_tasks(cfg.get("tasks"), tasks)
    names = [task.name for task in tasks]
    heads = dict(cfg.get("heads") or {})
    if cfg.get("head") is not None:
        heads = dict.fromkeys(names, cfg["head"]) | heads
    check_heads(heads, names)
    with within("model.backbone"):
        BACKBONES.check_config(cfg["backbone"])
    for index, item in enumerate(cfg.get("adapters") or ()):
        with within(f"model.adapters.{index}"):
            ADAPTERS.check_config(item)
    with within("model.decoder"):
        DECODERS.check_config(cfg["decoder"])
    for name, head in heads.items():
        with within(f"model.heads.{name}" if name in (cfg.get("heads") or {}) else "model.head"):
            HEADS.check_config(head)
    return heads


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


def _check_tasks(made_for: Mapping[str, int] | None, tasks: Sequence[Task]) -> None:
    given = {task.name: task.out_channels for task in tasks}
    if not given:
        raise ValueError("model: no tasks. Give at least one task of the protocol.")
    if made_for is not None and dict(made_for) != given:
        raise ValueError(
            f"model: this architecture predicts {dict(made_for)} (task: channels), but the tasks given are "
            f"{given}. Use the protocol and tasks it was trained with."
        )
