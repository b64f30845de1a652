"""A benchmark's full definition; results compare only if their protocols agree in id and digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mtvision.core.naming import UnknownNameError, look_up, within
from mtvision.core.task import IGNORE, Task
from mtvision.core.values import Count, Factor, Text
from mtvision.protocols.digest import protocol_digest
from mtvision.protocols.entries import build_task


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Tasks, splits, sizes and scoring rules, frozen.

    Args:
        id: lower-case name, part of every record.
        title: for headings.
        family: `invpt`, `survey`, `mtan`, `synthetic` or `own`.
        tasks: in the family's order, which some decoders depend on.
        splits: {split: number of images}; a data set of another size is refused. Empty = not checked.
        train_size: (H, W) of training crops.
        eval_size: (H, W) images are padded to for scoring; None = as they are.
        loss_weights: {task: weight} of the family's weighted sum.
        baselines: {name: {task: headline score}} single-task references for the multi-task gain.
        checkpoint_rule: which checkpoint is scored.
        source: where the definition comes from.
        unselected: tasks that `select` left out. Labels may be derived from theirs.

    >>> from mtvision.protocols import get_protocol
    >>> protocol = get_protocol("nyud-invpt")
    >>> protocol.task_names, protocol.splits["val"]
    (('semseg', 'depth', 'normals', 'edge'), 654)
    >>> protocol.select(["depth"]).task_names
    ('depth',)
    """

    id: str
    title: str
    family: str
    tasks: tuple[Task, ...]
    splits: Mapping[str, int] = field(default_factory=dict)
    train_size: tuple[int, int] | None = None
    eval_size: tuple[int, int] | None = None
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    checkpoint_rule: str = "last"
    source: str = ""
    unselected: tuple[Task, ...] = ()

    def __post_init__(self) -> None:
        names = self.task_names
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"protocol {self.id}: tasks must be non-empty and distinct, got {names}.")
        for name in self.loss_weights:
            if name not in names:
                raise UnknownNameError(f"task in loss_weights of protocol {self.id}", name, names)
        for task in self.tasks:
            most = {"classes": IGNORE, "instances": IGNORE - 1, "values": None}[task.label]
            if most is not None and task.num_classes > most:
                raise ValueError(
                    f"protocol {self.id}: task '{task.name}' has {task.num_classes} classes, expected at "
                    f"most {most}: id {IGNORE} means 'no label'. Merge classes, or leave rare ones out."
                )

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(task.name for task in self.tasks)

    def digest(self) -> str:
        """Hash of everything that changes a number; see `mtvision.protocols.digest`."""
        return protocol_digest(self, self.known_tasks)

    def task(self, name: str) -> Task:
        """The task of that name; raises `UnknownNameError`."""
        return look_up(f"task of protocol {self.id}", name, {task.name: task for task in self.tasks})

    def select(self, names: Sequence[str]) -> Protocol:
        """The same protocol restricted to some tasks, in the protocol's order (single-task baselines)."""
        for name in names:
            self.task(name)
        kept = tuple(task for task in self.tasks if task.name in names)
        others = tuple(task for task in self.tasks if task.name not in names)
        weights = {name: weight for name, weight in self.loss_weights.items() if name in names}
        baselines = {
            key: {name: score for name, score in scores.items() if name in names}
            for key, scores in self.baselines.items()
        }
        return replace(
            self,
            tasks=kept,
            loss_weights=weights,
            baselines=baselines,
            unselected=(*self.unselected, *others),
        )

    @property
    def known_tasks(self) -> dict[str, Task]:
        """{name: task} of all tasks, also of those that `select` left out."""
        return {task.name: task for task in (*self.tasks, *self.unselected)}


def own_protocol(
    id: Text,  # noqa: A002  the field's name in records
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    title: str = "",
    splits: Mapping[str, Count] | None = None,
    loss_weights: Mapping[str, Factor] | None = None,
) -> Protocol:
    """Protocol for a user's own data; errors name the key in a config, e.g. `protocol.tasks.depth`.

    Args:
        id: name under which results are filed.
        tasks: {task name: what it is}, see `mtvision.protocols.entries.build_task`.
        title: for headings; the id by default.
        splits: expected number of images per split, unchecked if omitted.
        loss_weights: weights of the weighted sum, 1 by default.

    >>> own_protocol("my-data", {"semseg": {"class_names": ["road", "car"]}, "edge": {}}).task_names
    ('semseg', 'edge')
    """
    if not isinstance(tasks, Mapping):
        raise TypeError(f"protocol.tasks: expected {{task: dict of options}}, got {tasks!r}.")
    values = tuple(_entry(name, entry) for name, entry in tasks.items())
    weights = {task.name: 1.0 for task in values} | dict(loss_weights or {})
    return Protocol(
        id=id, title=title or id, family="own", tasks=values, splits=splits or {}, loss_weights=weights
    )


def _entry(name: str, entry: Any) -> Task:
    with within(f"protocol.tasks.{name}"):
        if not isinstance(entry, Mapping):
            raise TypeError(f"expected a dict of options and fields, e.g. dict(type='depth'), got {entry!r}.")
        return build_task(name, **entry)
