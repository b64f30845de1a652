"""The page of all commands, from their parsers."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

from mtvision.cli.main import COMMANDS

PAGE = "docs/commands.md"
HEAD = """\
# Commands

<!-- Written by `python tools/documentation commands`; a test compares it with the parsers. -->

`mtvision … --help` prints the same. In a checkout, `tools/` has a script for each command.
"""


class _ParserFoundError(Exception):
    """Carries a parser out of a command, before the command does anything."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__("the parser of a command")
        self.parser = parser


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of `mtvision COMMAND`, which is made when the command starts."""

    def found(parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _ParserFoundError(parser)

    module = importlib.import_module(f"mtvision.cli.{COMMANDS[command][0]}")
    with patch.object(argparse.ArgumentParser, "parse_known_args", found):
        try:
            module.main([])
        except _ParserFoundError as caught:
            return caught.parser
    raise TypeError(f"mtvision {command} did not make a parser.")


def commands_page() -> str:
    """The page: a section per command, with its description and a table of its arguments."""
    parts = [HEAD]
    for name, (_, line) in COMMANDS.items():
        parser = parser_of(name)
        parts += [f"## {name}\n", f"{_sentence(line)}\n", *_section(parser)]
        for word, inner in _subparsers(parser).items():
            parts += [f"### {name} {word}\n", *_section(inner)]
    return "\n".join(parts)


def _section(parser: argparse.ArgumentParser) -> list[str]:
    text = re.sub(r"\n{3,}", "\n\n", (parser.description or "").strip("\n"))
    parts = [f"```text\n{text}\n```\n"] if text else []
    rows = [_row(action, parser) for action in parser._actions if _is_told(action)]
    return [*parts, "| argument | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"] if rows else parts


def _is_told(action: argparse.Action) -> bool:
    plain = not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    return plain and action.help != argparse.SUPPRESS


def _row(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    values = "" if action.nargs == 0 else _values(action)
    name = ", ".join(f"{option} {values}".strip() for option in action.option_strings) or values
    text = re.sub(r"\s+", " ", parser._get_formatter()._expand_help(action) if action.help else "")
    required = " (required)" if action.required and action.option_strings else ""
    return f"| `{name}` | {_escaped(text)}{required} |".replace("|  |", "| |")


def _values(action: argparse.Action) -> str:
    """`FILE`, `a|b`, `NAME ...`: what an argument takes."""
    word = "/".join(map(str, action.choices)) if action.choices else None
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    shown = action.metavar or word or (action.dest.upper() if action.option_strings else action.dest)
    more = {"*": f"[{shown} ...]", "+": f"{shown} ...", "?": f"[{shown}]"}
    if isinstance(action.nargs, int):
        return " ".join([shown] * action.nargs)
    return more.get(str(action.nargs), shown).replace("|", "/")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("…") else ".")


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    groups = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: inner for group in groups for name, inner in group.choices.items()}


def write(root: Path) -> Path:
    """Write the page; returns its file."""
    (root / PAGE).write_text(commands_page(), encoding="utf-8")
    return root / PAGE
