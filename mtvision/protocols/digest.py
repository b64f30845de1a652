"""The digest of a protocol: a hash of everything that changes a number, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mtvision.core.task import IGNORE, Task

EVALUATOR_VERSION = 1
"""Raise it in every change after which a metric, an activation or a rule of scoring gives other numbers."""

LENGTH = 16
"""Hexadecimal digits of a digest."""

NOT_IN_PROTOCOL = {
    "id": "a name; tables compare it beside the digest",
    "title": "a name",
    "family": "a name; what families do differently are options of the tasks",
    "source": "a citation",
    "train_size": "how networks are trained, not how they are scored",
    "loss_weights": "how networks are trained, not how they are scored",
    "baselines": "what gains are computed over; a record holds its own baseline",
    "tasks": "hashed as `known_tasks`",
    "unselected": "hashed as `known_tasks`: a part of the tasks is scored as the whole is",
}
"""{field of a protocol that the digest leaves out: why}. Every other field is hashed, new ones too."""

NOT_IN_TASK = {
    "loss": "how networks are trained, not how they are scored",
    "palette": "how maps are drawn",
    "colours": "how maps are drawn",
}
"""The same for the fields of a task."""


def protocol_digest(protocol: Any, known_tasks: Mapping[str, Task]) -> str:
    """Sha256 of what decides a score, `LENGTH` hexadecimal digits.

    Hashed are the tasks: class names, kinds of labels, activations, metrics and their options. Hashed too are
    the sizes of splits and of evaluation, the ignored class id, the checkpoint rule and `EVALUATOR_VERSION`.
    The order of tasks, titles and citations do not count. A protocol and its restriction by `select` have one
    digest.

    Args:
        protocol: a `Protocol`, which calls this.
        known_tasks: {name: task} of all its tasks, also of those that `select` left out.
    """
    tasks = {name: _task_content(task) for name, task in known_tasks.items()}
    content = {
        **_content(protocol, NOT_IN_PROTOCOL),
        "tasks": tasks,
        "ignore": IGNORE,
        "evaluator": EVALUATOR_VERSION,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _task_content(task: Task) -> dict[str, Any]:
    """As it has always been hashed: the first metric in two entries, and further ones only if there are."""
    content = _content(task, NOT_IN_TASK)
    first, *further = content.pop("metrics")
    content |= {"metric": first.pop("type"), "metric_options": first}
    return content | ({"further_metrics": further} if further else {})


def _content(value: Any, left_out: Mapping[str, str]) -> dict[str, Any]:
    names = [item.name for item in fields(value) if item.name not in left_out]
    return {name: _canonical(getattr(value, name)) for name in names}


def _canonical(value: Any) -> Any:
    """Plain data that is written alike however it was spelt: tuples are lists, 10.0 is 10.

    Raises:
        TypeError: the value is no plain data, so its text could differ from process to process.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(name): _canonical(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_canonical(item) for item in value]
    raise TypeError(
        f"protocol digest: found {type(value).__name__} {value!r}, expected plain data (None, true or false, "
        "numbers, text, lists, dicts). Give the option as plain data."
    )
