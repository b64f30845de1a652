"""`mtvision list` and `mtvision show`: what can be named in a config."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Sequence

from mtvision.cli.catalogue.common import holds_all, none_holds
from mtvision.cli.catalogue.uses import uses_of
from mtvision.cli.common import add_plugin_option
from mtvision.core.registry import Registry, tables
from mtvision.core.registry.described import Described, described, table_of
from mtvision.recipe.plugins import load_announced, load_plugins

SHOWN_USES = 10

LIST = """\
What a config may name, with one line each. Installed plugins are included.

  mtvision list                        kinds of entries, and how many there are
  mtvision list decoders               all decoders
  mtvision list balancers jacobian     those whose name or first line holds the word
"""
SHOW = """\
One entry: where it is defined, its arguments, its documentation, and the shipped configs that name it.

  mtvision show decoder TaskExpertDecoder
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mtvision list`; returns the exit code."""
    parser = _parser("list", LIST)
    parser.add_argument("kind", nargs="?", help="e.g. decoder; without it, the kinds are listed")
    parser.add_argument("words", nargs="*", help="show only entries that hold all of them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    load_plugins(arguments.plugin)
    load_announced()
    if arguments.kind is None:
        _list_kinds(as_json=arguments.json)
        return 0
    table = table_of(arguments.kind, tables())
    entries = [
        item
        for item in (described(table, name) for name in sorted(table))
        if holds_all(f"{item.name} {item.summary}", arguments.words)
    ]
    if arguments.json:
        print(json.dumps([_as_json(item) for item in entries], indent=2))
    elif not entries:
        print(none_holds(table.name, arguments.words))
    else:
        width = max(len(item.name) for item in entries)
        print("\n".join(f"{item.name:<{width}}  {item.summary}  [{item.module}]" for item in entries))
    return 0


def show_main(argv: Sequence[str] | None = None) -> int:
    """Run `mtvision show`; returns the exit code."""
    parser = _parser("show", SHOW)
    parser.add_argument("kind", help="e.g. decoder; `mtvision list` has them all")
    parser.add_argument("name", help="of the entry; `mtvision list KIND` has them all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    load_plugins(arguments.plugin)
    table = table_of(arguments.kind, tables())
    entry = described(table, arguments.name)
    signature, uses = _signature(table, arguments.name), uses_of(arguments.name)
    if arguments.json:
        print(
            json.dumps(
                {**_as_json(entry), "signature": signature, "text": entry.text, "used_in": uses}, indent=2
            )
        )
        return 0
    print(f"{table.name} {entry.name}\n{entry.place}\n")
    if signature:
        print(f"{signature}\n")
    print(inspect.cleandoc(entry.text) if entry.text else "No documentation.")
    if table.supplied:
        print(f"\nSupplied by the suite, never by a config: {', '.join(sorted(table.supplied))}.")
    more = f", … ({len(uses)} in all)" if len(uses) > SHOWN_USES else ""
    print(f"\nNamed in: {', '.join(uses[:SHOWN_USES]) or 'no shipped config'}{more}")
    return 0


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"mtvision {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_plugin_option(parser)
    return parser


def _list_kinds(*, as_json: bool) -> None:
    counts = {table.name: len(table) for table in tables().values()}
    if as_json:
        print(json.dumps(counts, indent=2))
        return
    width = max(map(len, counts))
    print("\n".join(f"{name:<{width}}  {count}" for name, count in sorted(counts.items())))


def _as_json(entry: Described) -> dict[str, str | int | None]:
    return {
        "name": entry.name,
        "summary": entry.summary,
        "module": entry.module,
        "file": None if entry.file is None else str(entry.file),
        "line": entry.line,
    }


class _Text(str):
    """An annotation that prints without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _signature(table: Registry, name: str) -> str:
    """`Name(argument: type = default, …)`, one argument a line; the class is imported for it."""
    value = table[name]
    if not callable(value):
        return ""
    plain = [
        item.replace(annotation=_Text(item.annotation)) if isinstance(item.annotation, str) else item
        for item in inspect.signature(value).parameters.values()
    ]
    lines = [f"    {item}," for item in plain]
    return "\n".join([f"{name}(", *lines, ")"]) if lines else f"{name}()"
