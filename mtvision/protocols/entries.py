"""An entry of `tasks` in a config becomes a `Task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from inspect import Parameter
from typing import Any, get_type_hints

from mtvision.core.naming import UnknownNameError, within
from mtvision.core.registry import TASKS
from mtvision.core.task import Task
from mtvision.core.values import check_value

FIELDS = tuple(item.name for item in fields(Task) if item.name != "name")
"""Fields of a task that an entry may state; its name is the entry's key."""

HINT = "A task of another name says type= (one of these), or label= and other fields of a task."
CHANNELS = ("label_channels", "out_channels")
_OF_LABEL = {"classes": "classes", "values": "values", "instances": "instance"}
"""{kind of label: constructor whose values an entry without `type` starts from}."""


def build_task(name: str, /, **entry: Any) -> Task:
    """A task from what a config says about it.

    `type` names a constructor in `TASKS`. Without it the entry's own name does, if a constructor has that
    name. Otherwise the entry is fields of `Task`, beginning with `label`. Options of the constructor and
    fields may stand side by side; fields replace what the constructor gives.

    `loss` and `metrics` may be names, configs, or (metrics) a list of both. A config of the same type as the
    constructor's, or without `type`, keeps the constructor's other options.

    Args:
        name: of the task, the key in label and prediction dicts.
        entry: `type`, options of the constructor and fields of `Task`.

    Raises:
        UnknownNameError: no such constructor, option or field.
        TypeError: the constructor needs an option.
        ValueError: a value of the wrong type, or a headline without direction.

    >>> build_task("depth_near", type="depth", max_depth=10, unit="feet").unit
    'feet'
    >>> build_task("albedo", label="values", label_channels=3).out_channels
    3
    """
    options = dict(entry)
    constructor = options.pop("type", None) or _constructor_of(name, options)
    parameters = TASKS.parameters(constructor)
    accepts_any = any(item.kind is Parameter.VAR_KEYWORD for item in parameters.values())
    known = {*parameters, *FIELDS}
    for key in options:
        if key not in known and not accepts_any:
            raise UnknownNameError("option or field of a task", key, known)
    stated = {key: value for key, value in options.items() if key in FIELDS and key not in parameters}
    arguments = {key: value for key, value in options.items() if key not in stated}
    config = {"type": constructor, **_implied(constructor, stated), **arguments}
    TASKS.check_config(config)
    task: Task = TASKS.build(config)
    return _with_fields(replace(task, name=name), stated)


def _constructor_of(name: str, options: dict[str, Any]) -> str:
    """The constructor for an entry that names none.

    Raises:
        UnknownNameError: the entry has no fields that say what the task is, so its name is probably wrong.
    """
    kind = options.get("label")
    if name in TASKS:
        return name
    if kind is None:
        try:
            TASKS[name]  # an installed plugin may have it
            return name
        except UnknownNameError as error:
            if "class_names" not in options and not any(key in options for key in CHANNELS):
                error.args = (f"{error}\n{HINT}",)
                raise
        kind = "classes" if "class_names" in options else "values"
    check_value("label", kind, get_type_hints(Task)["label"])
    return _OF_LABEL[kind]


def _implied(constructor: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a generic constructor that follow from fields: `channels` from the channels of the label."""
    for key in CHANNELS:
        check_value(key, stated.get(key, 1), int)
    found = next((stated[key] for key in CHANNELS if key in stated), None)
    return {"channels": found} if constructor == "values" and found is not None else {}


def _with_fields(task: Task, stated: Mapping[str, Any]) -> Task:
    """The task with the fields that an entry states.

    Raises:
        ValueError, UnknownNameError: a value of the wrong type; a headline without its direction.
    """
    kinds, changes = get_type_hints(Task), dict(stated)
    if "loss" in changes:
        with within("loss"):
            changes["loss"] = _over((task.loss,), changes["loss"])
    if "metrics" in changes:
        with within("metrics"):
            given = changes["metrics"]
            several = given if isinstance(given, list | tuple) else [given]
            changes["metrics"] = tuple(_over(task.metrics, item) for item in several)
    for key, value in changes.items():
        check_value(key, value, kinds[key])
    if changes.get("headline", task.headline) != task.headline and "higher_is_better" not in changes:
        raise ValueError(
            f"headline='{changes['headline']}' needs higher_is_better=True or False beside it: which way is "
            "better?"
        )
    if "colours" not in changes and changes.keys() & {"label", "geometry"}:
        changes["colours"] = ""  # what suits them
    return replace(task, **{key: _tuples(value) for key, value in changes.items()})


def _over(base: Sequence[Mapping[str, Any]], given: Any) -> dict[str, Any]:
    """A config of a loss or metric, with the other options of the base that has the same type."""
    if not isinstance(given, str | Mapping):
        raise ValueError(f"expected a name or a dict(type=...), got {given!r}.")
    stated = {"type": given} if isinstance(given, str) else dict(given)
    kind = stated.setdefault("type", base[0]["type"])
    same = next((item for item in base if item["type"] == kind), {})
    return {**same, **stated}


def _tuples(value: Any) -> Any:
    """Lists of a config as tuples, which a frozen task holds."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
