"""Whether the values of a config are what sections and classes take; all mistakes are collected."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin

from mtvision.core.naming import Mistakes, UnknownNameError, meant
from mtvision.core.registry.options import Option, options_at, options_of_section
from mtvision.core.registry.sources import Definition
from mtvision.core.values import (
    ByTask,
    Entry,
    OptionsOf,
    check_key,
    check_value,
    describe,
    extras_of,
    parts_of,
)


def check_kind(found: Mistakes, value: Any, kind: Any, note: str = "") -> None:
    """Note what is wrong with a value; what is inside of sections, entries and lists has keys of its own.

    Args:
        found: collects; its present key is that of the value.
        value: plain data.
        kind: a type, see `mtvision.core.values`; a dataclass is a section.
        note: a sentence for the end of the message.
    """
    for part in parts_of(kind):
        for extra in extras_of(part):
            if isinstance(extra, ByTask) and isinstance(value, Mapping) and found.tasks is not None:
                check_tasks(found, value, found.tasks, every=extra.every)
        if _look_inside(found, value, part):
            return
    try:
        check_value(found.key, value, kind, note)
    except (UnknownNameError, ValueError, TypeError) as error:
        found.add(error)


def check_section(found: Mistakes, given: Any, section: type) -> dict[str, Any]:
    """Note unknown and missing keys of a section, and values of the wrong kind.

    Args:
        found: collects; its present key is that of the section.
        given: of the config.
        section: a dataclass.

    Returns:
        What is given and right.
    """
    if not isinstance(given, Mapping):
        check_kind(found, given, section)
        return {}
    check_options(found, given, options_of_section(section))
    return {
        name: value for name, value in given.items() if not found.below(f"{found.key}.{name}".lstrip("."))
    }


def check_options(
    found: Mistakes, given: Mapping[str, Any], options: Mapping[str, Option], others: Collection[str] = ()
) -> None:
    """Note unknown and missing options, and values of the wrong kind.

    Args:
        found: collects; its present key is that of the options.
        given: of the config.
        options: all that there are.
        others: keys beside these options; an unknown one may be what a missing one was meant to be.
    """
    what = f"key of {found.key}" if found.key else "key of the config"
    for name, value in given.items():
        with found.at(name):
            if name not in options:
                raise UnknownNameError(what, name, options)
            check_kind(found, value, options[name].kind, options[name].note)
    misspelt = meant(
        {*given, *others} - set(options), options
    )  # a wrong name and a missing one are one mistake
    for name, option in options.items():
        if option.required and name not in given and name not in misspelt:
            with found.at(name):
                raise ValueError(f"{found.key} is missing; expected {describe(option.kind)}.")


def check_entry(found: Mistakes, value: Any, entry: Entry) -> None:
    """Note what is wrong with an entry of a table.

    Args:
        found: collects; its present key is that of the entry.
        value: a dict, or what else the entry takes.
        entry: says which.
    """
    from mtvision.core.registry import tables  # which this module is a part of

    if not isinstance(value, Mapping | str):
        return  # made already
    table = tables()[entry.table]
    if isinstance(value, str):
        try:
            table.require(value)
        except UnknownNameError as error:
            found.add(error)
            return
    given = {entry.key: value} if isinstance(value, str) else dict(value)
    own = also_of(entry)
    if entry.key in own:
        given.setdefault(entry.key, ast.literal_eval(str(own[entry.key].default)))
    beside = {name: given[name] for name in own if name in given and name != entry.key}
    rest = {name: item for name, item in given.items() if name not in beside}
    check_options(found, beside, {name: item for name, item in own.items() if name != entry.key}, rest)
    table.check_config(rest, found, key=entry.key, beside=[name for name in own if name != entry.key])


def also_of(entry: Entry) -> Mapping[str, Option]:
    """{key: option} of what may stand beside an entry's arguments."""
    return options_at(definition_at(entry.also)) if entry.also else {}


def definition_at(path: str) -> Definition:
    """The class or function at `module:name`."""
    module, _, name = path.partition(":")
    return Definition(module, name)


def _look_inside(found: Mistakes, value: Any, part: Any) -> bool:
    """Check the content of a value that one alternative describes; whether it was one."""
    for extra in extras_of(part):
        if isinstance(extra, Entry) and value in extra:
            check_entry(found, value, extra)
            return True
        if isinstance(extra, OptionsOf) and value in extra:
            check_options(found, value, options_at(definition_at(extra.path)))
            return True
    if isinstance(part, type) and is_dataclass(part) and isinstance(value, Mapping):
        check_section(found, value, part)
        return True
    part = get_args(part)[0] if get_origin(part) is Annotated else part
    origin, arguments = get_origin(part), get_args(part)
    if not isinstance(origin, type) or not arguments:
        return False
    if issubclass(origin, Mapping) and isinstance(value, Mapping):
        for name, item in value.items():
            with found.at(name):
                check_key(found.key, name, arguments[0])
                check_kind(found, item, arguments[1])
        return True
    if issubclass(origin, Sequence) and isinstance(value, list | tuple) and holds_parts(arguments[-1]):
        for index, item in enumerate(value):
            with found.at(index):
                check_kind(found, item, arguments[-1])
        return True
    return False


def check_tasks(
    found: Mistakes, value: Mapping[str, Any], tasks: Collection[str], *, every: bool = False
) -> None:
    """Note keys that are no tasks.

    Args:
        found: collects; its present key is that of the dict.
        value: {task: entry}.
        tasks: that there are.
        every: whether each of them must have an entry.
    """
    what = f"task in {found.key}"
    for name in value:
        with found.at(name):
            if name not in tasks:
                raise UnknownNameError(what, name, tasks)
    lacking = [name for name in tasks if name not in value]
    if every and lacking and set(value) <= set(tasks):
        found.add(ValueError(f"no entry of {', '.join(lacking)}; every task of the run needs one."))


def holds_parts(kind: Any) -> bool:
    """Whether a kind has entries, options or sections in it, whose content has keys of its own."""
    return any(
        any(isinstance(extra, Entry | OptionsOf) for extra in extras_of(part))
        or (isinstance(part, type) and is_dataclass(part))
        or any(
            holds_parts(item) for item in get_args(part) if get_origin(part) is not None and item is not ...
        )
        for part in parts_of(kind)
    )
