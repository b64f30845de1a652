"""The tasks of a run, and the config without the entries of tasks that it does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import ADAPTERS, DECODERS, Registry
from mtvision.core.task import without_tasks
from mtvision.protocols import Protocol
from mtvision.recipe.settings import to_plain_data

PER_TASK = {
    "model": ("heads",),
    "training": ("loss_options",),
    "evaluation": ("metric_options", "during_training", "baseline"),
}
"""{section: keys whose value is {task: entry}}. In a balancer that is every option which is a mapping."""

COMPONENTS: dict[str, Registry] = {"decoder": DECODERS, "adapters": ADAPTERS}
"""Parts of `model` with entries of tasks; their classes know which (`for_tasks`)."""


def drop_absent_tasks(config: dict[str, Any], protocol: Protocol) -> None:
    """Remove the entries of tasks that the protocol has but the run has not, in place.

    Names that are no task of the protocol stay. Building the run reports them as errors.

    Args:
        config: completed; changed in place.
        protocol: restricted to the tasks of the run.
    """
    absent = {task.name for task in protocol.unselected}
    balancer = _section(config, "balancer")
    plain = [key for key, value in balancer.items() if isinstance(value, Mapping) and "type" not in value]
    for section, keys in {**PER_TASK, "balancer": plain}.items():
        entries = _section(config, section)
        for key, value in without_tasks(entries, keys, absent).items():
            if value != entries[key]:
                entries[key] = value
    for part, registry in COMPONENTS.items():
        entry = _section(config, "model").get(part)
        # import a class only if its options name tasks
        if absent and _mentions(entry, protocol.known_tasks):
            for component in entry if isinstance(entry, list | tuple) else [entry]:
                _restrict(component, registry, protocol, absent)


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A section of the config; empty if it is absent or no dict, which `Settings.of` or a builder reports."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _restrict(component: Any, registry: Registry, protocol: Protocol, absent: Collection[str]) -> None:
    try:
        registry.check(component)
    except (TypeError, UnknownNameError):
        return  # `check_config` reports it, before a class is imported
    found: Any = registry.choose(component["type"])
    options = {key: to_plain_data(value) for key, value in component.items() if key != "type"}
    for key, value in found.for_tasks(options, protocol.task_names, absent).items():
        if value != options.get(key):
            component[key] = value


def _mentions(value: Any, names: Collection[str]) -> bool:
    return any(text in names for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
