"""A completed config, checked: its settings and its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mtvision.core.naming import Mistakes, UnknownNameError, gathering, look_up, meant
from mtvision.core.registry import TASKS
from mtvision.core.registry.entries import check_kind, check_section, check_tasks
from mtvision.core.registry.options import Option, options_of_section
from mtvision.core.task import Task
from mtvision.core.values import describe
from mtvision.protocols import Protocol, get_protocol, own_protocol
from mtvision.protocols.entries import FIELDS, build_task
from mtvision.recipe.sections import (
    SECTIONS,
    EvaluationSettings,
    LoggingSettings,
    OwnProtocol,
    ProtocolName,
    Seed,
    TopLevel,
    TrainingSettings,
)


def check_keys(what: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse unknown keys, naming near ones."""
    known = list(known)
    for key in given:
        if key not in known:
            raise UnknownNameError(what, key, known)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A completed config, checked: the sections with fixed keys and the protocol."""

    protocol: Protocol
    training: TrainingSettings
    evaluation: EvaluationSettings
    logging: LoggingSettings
    seed: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Read a config that `load_config` returned.

        Raises:
            TypeError, ValueError, UnknownNameError: a value is missing, of the wrong kind or unknown.
            ConfigError: several of these.
        """
        with gathering("config") as found:
            settings = read_settings(found, to_plain_data(config))
        assert settings is not None  # without a mistake there are settings
        return settings


def read_settings(found: Mistakes, config: Mapping[str, Any]) -> Settings | None:
    """The settings of a config; instead of what is wrong, they have the defaults.

    Args:
        found: collects the mistakes. From now on it knows the tasks of the run.
        config: completed, plain data.

    Returns:
        None if the protocol is wrong.
    """
    protocol = _read_protocol(found, config)
    sections = {}
    for name, kind in SECTIONS.items():
        sections[name] = kind()
        with found.at(name):
            given = config[name]
            sections[name] = kind(**check_section(found, {} if given is None else given, kind))
    with found.at("seed"):
        check_kind(found, config["seed"], Seed, f"The default is {TopLevel.seed}.")
    rule, interval = sections["evaluation"].select, sections["training"].val_interval
    with found.at("evaluation"), found.at("select"):
        if rule != "last" and not interval and not found.below("training.val_interval"):
            raise ValueError(
                f"evaluation.select='{rule}' chooses from evaluations during training: set "
                "training.val_interval, e.g. to the iterations of an epoch."
            )
    if protocol is None:
        return None
    with found.at("evaluation"), found.at("baseline"):
        _check_baseline(protocol, sections["evaluation"].baseline)
    return Settings(protocol=protocol, seed=config["seed"], **sections)


def _check_baseline(protocol: Protocol, named: str | Mapping[str, float] | None) -> None:
    """Refuse a baseline that is unknown or lacks a task, before training.

    Raises:
        UnknownNameError: the protocol has no such baseline.
        ValueError: it has no score of a task.
    """
    if not named:
        return
    kind = f"baseline of protocol {protocol.id}"
    baseline = look_up(kind, named, protocol.baselines) if isinstance(named, str) else named
    lacking = [name for name in protocol.task_names if name not in baseline]
    if lacking:
        raise ValueError(
            f"evaluation.baseline has no score of {', '.join(lacking)}; the gain needs one for every task. "
            "Train the other tasks alone (tasks=[...]), or leave the baseline out."
        )


def _read_protocol(found: Mistakes, config: Mapping[str, Any]) -> Protocol | None:
    """The protocol, restricted to the run's tasks where these are right; None if it is wrong itself."""
    protocol = None
    with found.at("protocol"):
        entry = config["protocol"]
        check_kind(found, entry, ProtocolName | OwnProtocol | None)
        if isinstance(entry, Mapping) and isinstance(entry.get("tasks"), Mapping):
            with found.at("tasks"):
                check_own_tasks(found, entry["tasks"])
            if isinstance(entry.get("loss_weights"), Mapping):
                with found.at("loss_weights"):
                    check_tasks(found, entry["loss_weights"], entry["tasks"])
        if not found.below("protocol"):
            protocol = protocol_of({"protocol": entry})
    if protocol is not None:
        with found.at("tasks"):
            protocol = _restricted(protocol, config["tasks"])
        found.tasks = protocol.task_names
    return protocol


def check_own_tasks(found: Mistakes, tasks: Mapping[str, Any]) -> None:
    """Note mistakes in the tasks that a config describes; the present key is that of all of them.

    Args:
        found: collects.
        tasks: {task: options of its constructor and fields}, see `mtvision.protocols.entries.build_task`.
    """
    for name, entry in tasks.items():
        with found.at(name):
            check_kind(found, entry, Mapping)
            if isinstance(entry, Mapping):
                _check_own_task(found, entry, entry.get("type", name))
            if not found.below(found.key):
                build_task(name, **entry)  # refuses what contradicts itself


def _check_own_task(found: Mistakes, entry: Mapping[str, Any], constructor: Any) -> None:
    options = dict(task_fields())
    if isinstance(constructor, str) and constructor in TASKS:
        options |= TASKS.options(constructor)
    for key, value in entry.items():
        with found.at(key):
            if key in options:
                check_kind(found, value, options[key].kind, options[key].note)
            elif key != "type" and constructor in TASKS:
                raise UnknownNameError("option or field of a task", key, options)
    misspelt = meant(set(entry) - set(options), options)
    for key, option in options.items():
        if option.required and key not in {*entry, *misspelt}:
            with found.at(key):
                raise ValueError(f"{found.key} is missing; expected {describe(option.kind)}.")


def task_fields() -> dict[str, Option]:
    """{field: option} of what an entry of `protocol.tasks` may say besides its constructor's options."""
    free = {"loss": Any, "metrics": Any}  # names, configs or lists of both, which `build_task` reads
    return {
        name: replace(option, kind=free.get(name, option.kind), required=False, default=None)
        for name, option in options_of_section(Task).items()
        if name in FIELDS
    }


def protocol_of(config: Mapping[str, Any]) -> Protocol:
    """The protocol a config names (`protocol="nyud-invpt"`) or defines, restricted to its `tasks`.

    Raises:
        ValueError, TypeError: it is missing, or `tasks` are no names.
        UnknownNameError: there is no such protocol, task or option.
    """
    entry = config["protocol"]
    if entry is None:
        raise ValueError("config: 'protocol' is missing; name one, or describe your own data's tasks.")
    if isinstance(entry, str):
        protocol = get_protocol(entry)
    elif not isinstance(entry, Mapping):
        raise TypeError(f"protocol: expected the id of a protocol or dict(id=..., tasks=...), got {entry!r}.")
    else:
        protocol = own_protocol(**{key: to_plain_data(value) for key, value in entry.items()})
    return _restricted(protocol, config.get("tasks"))


def _restricted(protocol: Protocol, tasks: Any) -> Protocol:
    return protocol if tasks is None else protocol.select(task_names(tasks))


def task_names(value: Any) -> list[str]:
    """The value of `tasks` in a config as a list.

    Args:
        value: names; or text, one name or several with commas between (`--cfg-options tasks=depth,edge`).

    Raises:
        TypeError: something else.
        ValueError: no name.

    >>> task_names("depth"), task_names(("depth", "edge"))
    (['depth'], ['depth', 'edge'])
    """
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"tasks: expected names such as ['depth'], got {value!r}.")
    found = [name.strip() for name in names]
    if not all(found) or not found:
        raise ValueError(f"tasks: got {value!r}. Name at least one task; leave the key out to train all.")
    return found


def to_plain_data(value: Any) -> Any:
    """Copy of nested config containers as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): to_plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_plain_data(item) for item in value)
    return value
