"""Types and ranges of the plain values in a config, and the message for a wrong one.

A type is an annotation: `int`, `float | None`, `Literal["a", "b"]`, `list[str]`, `dict[str, float]`.
`Annotated` adds a range, or a function that checks the value further. It also names what describes a value:
a table whose entry it is, or a class whose options it has. Numbers are finite, and integers have 64 bits.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mtvision.core.naming import UnknownNameError


@dataclass(frozen=True)
class AtLeast:
    """A range of `Annotated` numbers.

    Args:
        minimum: the smallest value.
    """

    minimum: float

    def __contains__(self, value: float) -> bool:
        return bool(value >= self.minimum)

    def __str__(self) -> str:
        return f"of at least {self.minimum}"


@dataclass(frozen=True)
class Above:
    """A range of `Annotated` numbers.

    Args:
        bound: what a value must exceed.
    """

    bound: float

    def __contains__(self, value: float) -> bool:
        return bool(value > self.bound)

    def __str__(self) -> str:
        return f"above {self.bound}"


@dataclass(frozen=True)
class Below:
    """A range of `Annotated` numbers.

    Args:
        bound: what a value must stay under.
    """

    bound: float

    def __contains__(self, value: float) -> bool:
        return bool(value < self.bound)

    def __str__(self) -> str:
        return f"below {self.bound}"


@dataclass(frozen=True)
class Between:
    """A range of `Annotated` numbers, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"between {self.low} and {self.high}"


@dataclass(frozen=True)
class NotEmpty:
    """A range of `Annotated` texts."""

    def __contains__(self, value: str) -> bool:
        return bool(value)


@dataclass(frozen=True)
class Entry:
    """An `Annotated` value is an entry of a table: a dict that names a class and has its arguments.

    Args:
        table: what the code calls it, e.g. `DECODERS`.
        key: that names the class.
        also: `module:class` of a dataclass whose fields may stand beside the arguments. A field that is
            called like `key` has the default of that key. The module is read, not imported.
        alone: the name alone, as text, is an entry too.
        made: an object that is made already is an entry too.
    """

    table: str
    key: str = "type"
    also: str = ""
    alone: bool = False
    made: bool = False

    def __contains__(self, value: Any) -> bool:
        if self.made and callable(value):
            return True
        return isinstance(value, Mapping) or (self.alone and isinstance(value, str))

    def __str__(self) -> str:
        return f"{'a name or ' if self.alone else ''}a dict with the key '{self.key}'"


@dataclass(frozen=True)
class OptionsOf:
    """An `Annotated` value is a dict of the arguments of a class or function.

    Args:
        path: `module:name`; the module is read, not imported.
    """

    path: str

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, Mapping)

    def __str__(self) -> str:
        return "a dict of options"


@dataclass(frozen=True)
class ByTask:
    """The keys of an `Annotated` dict are tasks of the run; others are mistakes.

    Args:
        every: whether all of them must be there.
    """

    every: bool = False


@dataclass(frozen=True)
class NameIn:
    """An `Annotated` text is a name in a table.

    Args:
        table: what the code calls it, e.g. `DERIVATIONS`.
    """

    table: str

    def check(self, value: str) -> None:
        """Raise `UnknownNameError` for a name that the table does not have."""
        registry = import_module("mtvision.core.registry")  # which needs this module
        registry.tables()[self.table].require(value)


@dataclass(frozen=True)
class CheckedBy:
    """A function that raises if an `Annotated` value is wrong.

    Args:
        path: `module:function`; the module is imported when a value is checked, so it must be a light one.
    """

    path: str

    def check(self, value: Any) -> None:
        """Call the function."""
        module, _, name = self.path.partition(":")
        attrgetter(name)(import_module(module))(value)


Positive = Annotated[int, AtLeast(1)]
Count = Annotated[int, AtLeast(0)]
Rate = Annotated[float, Above(0)]
Factor = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1)]
Part = Annotated[float, Above(0), Below(1)]
Text = Annotated[str, NotEmpty()]
TaskWeights = Annotated[Mapping[str, Factor], ByTask(every=True)]


class Other:
    """Stands for a class that is no plain type, and that was read but not imported, e.g. a tensor."""


_NUMBERS = (AtLeast, Above, Below, Between)
_RANGES = (*_NUMBERS, NotEmpty)
_PLACES = (Entry, OptionsOf)
_LARGEST = 2**63 - 1
_PLAIN = (int, float, str, list, tuple, Mapping, type(None))
_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    type(None): "None",
}


def check_value(key: str, value: Any, kind: Any, note: str = "") -> None:
    """Refuse a value that does not have a type.

    Args:
        key: where the value stands, e.g. `training.iterations`.
        value: plain data.
        kind: a type as above; a kind that is not understood accepts everything.
        note: a sentence for the end of the message.

    Raises:
        UnknownNameError: a text that is none of a `Literal`'s choices.
        ValueError: any other value of the wrong type or range.
    """
    if _fits(value, kind):
        for checker in _checkers(kind, value):
            checker.check(value)
        return
    choices = choices_of(kind)
    if choices and isinstance(value, str) and not _accepts_text(kind):
        raise UnknownNameError(key, value, map(str, choices))
    found = repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]} …"
    hint = _hint(value, kind)
    raise ValueError(" ".join(filter(None, [f"{key} must be {describe(kind)}, got {found}.", hint, note])))


def check_key(key: str, name: Any, kind: Any) -> None:
    """Refuse a key of a dict that does not have a type; `key` is where it stands.

    Raises:
        ValueError: the key has the wrong type.
    """
    if not _fits_key(name, kind):
        raise ValueError(f"{key}: the key must be {describe(kind)}, got {name!r}.")


def check_fields(section: str, settings: Any) -> None:
    """Check every field of a dataclass against its annotation; `section` precedes its keys in messages.

    Raises:
        UnknownNameError, ValueError: as `check_value`.
    """
    kinds = get_type_hints(type(settings), include_extras=True)
    for item in fields(settings):
        note = "" if item.default in (MISSING, None) else f"The default is {item.default!r}."
        key = f"{section}.{item.name}" if section else item.name
        check_value(key, getattr(settings, item.name), kinds[item.name], note)


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        base, *extras = arguments
        places = [item for item in extras if isinstance(item, _PLACES)]
        if places:
            return value in places[0]
        return _fits(value, base) and all(value in item for item in extras if isinstance(item, _RANGES))
    if origin in (Union, types.UnionType):
        plain = [item for item in arguments if not _is_other(item)]
        made = len(plain) < len(arguments) and not isinstance(value, _PLAIN)
        return made or any(_fits(value, item) for item in plain)
    if origin is Literal:
        return any(value == item and type(value) is type(item) for item in arguments)
    if isinstance(origin, type) and not arguments:  # `List` without what it holds
        return _fits(value, origin)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits_key(name, arguments[0]) and _fits(item, arguments[1]) for name, item in value.items()
        )
    if origin is tuple and arguments[-1] is not ...:
        return _is_list(value, len(arguments)) and all(map(_fits, value, arguments))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _is_list(value) and all(_fits(item, arguments[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
    if kind is Path:
        return isinstance(value, str | Path)
    if isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, Mapping)):
        return isinstance(value, Mapping)
    if kind in (list, tuple, Sequence):
        return _is_list(value)
    return not isinstance(kind, type) or kind not in _NAMES or isinstance(value, kind)


def _is_other(kind: Any) -> bool:
    """Whether a kind is a class that no plain value of a config belongs to."""
    if not isinstance(kind, type) or is_dataclass(kind) or kind in _NAMES:
        return False
    return not issubclass(kind, Mapping | Sequence)


def _fits_key(name: Any, kind: Any) -> bool:
    """A key of a config is text, also where it stands for a number."""
    return _fits(name, kind) or (kind is int and isinstance(name, str) and name.lstrip("-").isdigit())


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list | tuple) and length in (None, len(value))


def parts_of(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the kind alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def choices_of(kind: Any) -> list[Any]:
    """The values that the `Literal`s of a kind list."""
    return [choice for item in parts_of(kind) if get_origin(item) is Literal for choice in get_args(item)]


def _accepts_text(kind: Any) -> bool:
    return any(item in (str, Path) for item in parts_of(kind))


def extras_of(kind: Any) -> tuple[Any, ...]:
    """What `Annotated` adds to a kind."""
    return get_args(kind)[1:] if get_origin(kind) is Annotated else ()


def _checkers(kind: Any, value: Any) -> list[CheckedBy | NameIn]:
    extras = [extra for item in parts_of(kind) if _fits(value, item) for extra in extras_of(item)]
    return [extra for extra in extras if isinstance(extra, CheckedBy | NameIn)]


def describe(kind: Any) -> str:
    """A kind in words, e.g. `an integer of at least 1 or None`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        places = [item for item in arguments[1:] if isinstance(item, _PLACES)]
        if places:
            return str(places[0])
        return " ".join(
            [describe(arguments[0]), *(str(item) for item in arguments[1:] if isinstance(item, _NUMBERS))]
        )
    if origin in (Union, types.UnionType):
        return " or ".join(describe(item) for item in arguments if not _is_other(item)) or "an object"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if isinstance(origin, type) and not arguments:
        return describe(origin)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a dict{_of(arguments[1])}"
    if origin is tuple and arguments[-1] is not ...:
        return f"({', '.join(map(describe, arguments))})"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list{_of(arguments[0])}"
    if isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, Mapping)):
        return "a dict"
    if kind in (list, tuple, Sequence):
        return "a list"
    return _NAMES.get(kind, "anything")


def _of(kind: Any) -> str:
    """` of integers`, for what a list or dict holds; empty if it may hold anything."""
    ranges = "".join(f" {item}" for item in extras_of(kind) if isinstance(item, _NUMBERS))
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    plain = get_origin(kind) or kind
    if isinstance(plain, type) and issubclass(plain, Mapping):
        return " of dicts"
    plurals = {int: "integers", float: "numbers", bool: "booleans", str: "strings", Path: "paths"}
    return f" of {plurals[plain]}{ranges}" if plain in plurals else ""


def _hint(value: Any, kind: Any) -> str:
    """What probably was meant, or why a number is none, if that can be told."""
    if isinstance(value, int | float) and not _is_finite(value):
        return "Numbers are finite."
    if value == "":
        return "It is empty."
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "Integers have 64 bits."
    guesses: list[Any] = [[value], (value, value)]
    if isinstance(value, str) and any(
        isinstance(extra, Entry) for part in parts_of(kind) for extra in extras_of(part)
    ):
        guesses.append({"type": value})
    if isinstance(value, float) and value.is_integer():
        guesses.insert(0, int(value))
    meant = next((guess for guess in guesses if _fits(guess, kind)), None)
    return "" if meant is None else f"Did you mean {meant!r}?"
