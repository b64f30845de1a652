"""Errors for the user of a command, above all the one for unknown names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import ClassVar, TypeVar

T = TypeVar("T")


class ReportedError(Exception):
    """A message for the user: a command prints it without a traceback and ends with `exit_code`."""

    exit_code: ClassVar[int] = 2


class UnknownNameError(ReportedError, KeyError):
    """A name that is not in a table. The message lists near names and all names.

    A `KeyError` prints the `repr` of its message, line breaks escaped; this one prints it as written.

    >>> print(UnknownNameError("decoder", "ParalelDecoder", ["ParallelDecoder", "TaskExpert"]))
    Unknown decoder 'ParalelDecoder'. Did you mean 'ParallelDecoder'?
    Known: ParallelDecoder, TaskExpert.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(str(item) for item in known)
        near = get_close_matches(str(name), choices, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(repr(item) for item in near)}?" if near else ""
        listing = ", ".join(choices) or "none is registered (name its module in `plugins`)"
        super().__init__(f"Unknown {kind} '{name}'.{hint}\nKnown: {listing}.")

    def __str__(self) -> str:
        return str(self.args[0])


def look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`.

    Raises:
        UnknownNameError: `table` has no such key; the message lists near and known names.
    """
    try:
        return table[name]
    except KeyError:
        raise UnknownNameError(kind, name, table) from None


@contextmanager
def within(place: str) -> Iterator[None]:
    """Errors about a config's values begin with the place that is checked, e.g. `test_data.dataset: `."""
    try:
        yield
    except (ReportedError, ValueError, TypeError) as error:
        error.args = (f"{place}: {error}", *error.args[1:])
        raise
