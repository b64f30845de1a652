"""What a table holds, for people: names, first lines, places. Shipped classes are read, not imported."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

from mtvision.core.naming import look_up
from mtvision.core.registry.sources import docstring_of, file_of, line_of, loaded_file
from mtvision.core.registry.table import Registry


@dataclass(frozen=True)
class Described:
    """One entry of a table.

    Args:
        name: what configs call it.
        module: dotted name of the module that defines it.
        file: its source file, None where there is none.
        line: in that file, counted from 1; None if unknown.
        text: its docstring, or the title of a value.
    """

    name: str
    module: str
    file: Path | None
    line: int | None
    text: str

    @property
    def summary(self) -> str:
        """The first sentence of the first line."""
        return self.text.split("\n")[0].rstrip(".")

    @property
    def place(self) -> str:
        """`file:line`, or the module."""
        if self.file is None:
            return self.module
        return str(self.file) if self.line is None else f"{self.file}:{self.line}"


def table_of(kind: str, tables: dict[str, Registry]) -> Registry:
    """The table that a word means: `decoder`, `decoders` or `DECODERS`.

    Args:
        kind: the word.
        tables: `mtvision.core.registry.tables()`.

    Raises:
        UnknownNameError: none; the message lists near and known words.
    """
    words = {table.name: table for table in tables.values()}
    plural = {variable.lower().replace("_", " "): table for variable, table in tables.items()}
    wanted = kind.lower().replace("_", " ").replace("-", " ")
    for candidate in (wanted, wanted.removesuffix("s")):
        if candidate in words:
            return words[candidate]
    return plural[wanted] if wanted in plural else look_up("kind", kind, words)


def described(table: Registry, name: str) -> Described:
    """An entry; what comes with the suite is not imported for it.

    Raises:
        UnknownNameError: the table has no such entry.
    """
    definition = table.shipped(name)
    text = None if definition is None else docstring_of(definition)
    if definition is not None and text is not None:
        return Described(name, definition.module, file_of(definition.module), line_of(definition), text)
    value = table[name]
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        module = table.place(name).module
        return Described(name, module, loaded_file(module), None, str(vars(value).get("title", "")))
    try:
        line: int | None = inspect.getsourcelines(value)[1]
    except (OSError, TypeError):  # a built-in, or code that was typed in
        line = None
    return Described(name, value.__module__, loaded_file(value.__module__), line, inspect.getdoc(value) or "")
