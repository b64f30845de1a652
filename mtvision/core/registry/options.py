"""What a class, function or section of a config may be given: names, types, defaults, one line each.

Errors, the JSON schema and the reference page are made from these.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from mtvision.core.registry.sources import Definition, bases_of, docstring_of, kinds_of, parameters_of

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Option:
    """One argument of a class, or one key of a section.

    Args:
        name: of it.
        kind: its type, see `mtvision.core.values`.
        required: whether it has no default.
        default: the text of its default; None without one.
        text: what its documentation says.
    """

    name: str
    kind: Any
    required: bool
    default: str | None
    text: str = ""

    @property
    def note(self) -> str:
        """A sentence about the default, for errors."""
        return "" if self.default in (None, "None") else f"The default is {self.default}."


@cache
def options_of_section(section: type) -> Mapping[str, Option]:
    """{key: option} of a dataclass that is imported."""
    kinds, texts = get_type_hints(section, include_extras=True), argument_texts(section.__doc__ or "")
    found = {}
    for item in fields(section):
        made = item.default if item.default_factory is MISSING else item.default_factory()
        default = None if made is MISSING else repr(made)
        found[item.name] = Option(
            item.name, kinds[item.name], default is None, default, texts.get(item.name, "")
        )
    return found


@cache
def options_at(definition: Definition) -> Mapping[str, Option]:
    """{argument: option} of a class or function, read from its source file."""
    kinds, texts = kinds_of(definition), _inherited_texts(definition)
    return {
        name: _option(name, item, kinds[name], texts)
        for name, item in parameters_of(definition).items()
        if item.kind not in _VARIABLE
    }


def options_of_callable(kind: Callable[..., Any]) -> dict[str, Option]:
    """{argument: option} of a class or function that is imported, e.g. of a plugin.

    A type that only type checkers can see accepts everything.
    """
    texts = argument_texts(inspect.getdoc(kind) or "")
    function: Any = kind.__init__ if inspect.isclass(kind) else kind
    names = function.__globals__ if inspect.isfunction(function) else {}
    return {
        name: _option(name, item, _evaluated(item.annotation, names), texts)
        for name, item in inspect.signature(kind).parameters.items()
        if item.kind not in _VARIABLE
    }


def argument_texts(docstring: str) -> dict[str, str]:
    """{argument: text} of the section `Args:` of a docstring.

    >>> argument_texts('''Title.
    ...
    ...     Args:
    ...         width: channels
    ...             inside.
    ...         tasks: names.
    ...     ''')
    {'width': 'channels inside.', 'tasks': 'names.'}
    """
    lines = inspect.cleandoc(docstring).split("\n")
    if "Args:" not in lines:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line.startswith(" "):
            break
        start = re.match(r" {4}(\w+)(?: \(.*?\))?: (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _option(name: str, item: inspect.Parameter, kind: Any, texts: Mapping[str, str]) -> Option:
    required = item.default is item.empty
    return Option(name, kind, required, None if required else str(item.default), texts.get(name, ""))


def _inherited_texts(definition: Definition) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(bases_of(definition)):
        found |= _inherited_texts(base)
    return found | argument_texts(docstring_of(definition) or "")


def _evaluated(annotation: Any, names: Mapping[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(names))  # the plugin's own text, in its own module
    except (NameError, AttributeError, TypeError, SyntaxError):  # e.g. imported for type checkers alone
        return Any
