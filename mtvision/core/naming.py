"""Errors for the user of a command: unknown names, and all mistakes of a config at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, TypeVar

from mtvision.core.files.foreign import ForeignError, cause, foreign_errors

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


class BuildError(ReportedError, RuntimeError):
    """A part of a config cannot be made with its options; the message names it and what failed."""


@contextmanager
def building(what: str) -> Iterator[None]:
    """Errors of Python and of libraries, while something is made from a config, name it.

    Args:
        what: e.g. `backbone 'TimmBackbone'`.

    Raises:
        BuildError: anything but errors that a user's mistake has anyway.

    >>> with building("head 'A'"):
    ...     {}["width"]
    Traceback (most recent call last):
    mtvision.core.naming.BuildError: head 'A' cannot be made with its options (KeyError: 'width').
    """
    try:
        with foreign_errors(ReportedError, ValueError, TypeError, OSError, ImportError, NotImplementedError):
            yield
    except ForeignError as foreign:
        text = f"{what} cannot be made with its options ({cause(foreign.error)})."
        raise BuildError(text) from foreign.error


def meant(wrong: Iterable[str], known: Iterable[str]) -> set[str]:
    """The known names that somebody may have meant by wrong ones."""
    choices = list(known)
    return {near for name in wrong for near in get_close_matches(str(name), choices, n=1, cutoff=0.6)}


def look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`.

    Raises:
        UnknownNameError: `table` has no such key; the message lists near and known names.
    """
    try:
        return table[name]
    except KeyError:
        raise UnknownNameError(kind, name, table) from None


@dataclass(frozen=True)
class Mistake:
    """One wrong entry of a config.

    Args:
        key: dotted, e.g. `training.iterations` or `schedule.0.power`; empty for the config as a whole.
        error: what is wrong; its message has the key.
    """

    key: str
    error: Exception

    def __str__(self) -> str:
        return str(self.error)


class ConfigError(ReportedError, ValueError):
    """Several mistakes of a config; the message lists all of them.

    Args:
        what: whose mistakes they are, e.g. `config my_config.py`.
        mistakes: two or more.
    """

    def __init__(self, what: str, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        texts = ["\n    ".join(str(mistake).splitlines()) for mistake in self.mistakes]
        super().__init__("\n  ".join([f"{what}: {len(texts)} mistakes", *texts]))


class Mistakes:
    """Collects the mistakes of a config, so that all of them are told at once.

    Attributes:
        key: of the place that is checked, dotted.
        tasks: names that entries of tasks may have, see `mtvision.core.values.ByTask`; None = any.

    >>> found = Mistakes()
    >>> with found.at("training"), found.at("iterations"):
    ...     raise ValueError("expected an integer, got 'many'.")
    >>> [str(mistake) for mistake in found]
    ["training.iterations: expected an integer, got 'many'."]
    """

    def __init__(self) -> None:
        self._found: dict[str, Mistake] = {}
        self.key = ""
        self.tasks: Collection[str] | None = None

    def __iter__(self) -> Iterator[Mistake]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    @contextmanager
    def at(self, name: object) -> Iterator[None]:
        """An error inside the block is a mistake of that key, and the block ends there.

        Args:
            name: of a key, or an index, below the block around it.
        """
        before, self.key = self.key, f"{self.key}.{name}" if self.key else str(name)
        try:
            yield
        except (ReportedError, ValueError, TypeError) as error:
            self.add(error)
        finally:
            self.key = before

    def add(self, error: Exception) -> None:
        """Note a mistake of the present key; of one key, the first counts.

        Where the message does not name the key, it is put in front.
        """
        named = re.search(rf"(?<![\w.]){re.escape(self.key)}(?!\w)", str(error).split("\n")[0])
        if self.key and not named:
            error.args = (f"{self.key}: {error}", *error.args[1:])
        self._found.setdefault(self.key, Mistake(self.key, error))

    def below(self, key: str) -> bool:
        """Whether a key, or one below it, is wrong."""
        return any(name == key or name.startswith(f"{key}.") for name in self._found)

    def end(self, what: str) -> None:
        """Raise what was found.

        Args:
            what: see `ConfigError`.

        Raises:
            ConfigError: there are several mistakes. A single one is raised as it is.
        """
        if len(self) > 1:
            raise ConfigError(what, self)
        for mistake in self:
            raise mistake.error


@contextmanager
def gathering(what: str) -> Iterator[Mistakes]:
    """Collect mistakes inside the block and raise them at its end.

    Args:
        what: see `ConfigError`.

    Raises:
        ConfigError: there are several mistakes. A single one is raised as it is.
    """
    found = Mistakes()
    yield found
    found.end(what)


@contextmanager
def within(place: str) -> Iterator[None]:
    """Errors about a config's values begin with the place that is checked, e.g. `test_data.dataset: `."""
    try:
        yield
    except (ReportedError, ValueError, TypeError) as error:
        error.args = (f"{place}: {error}", *error.args[1:])
        raise
