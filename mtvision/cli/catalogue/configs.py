"""`mtvision configs list|show|copy`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mtvision.cli.catalogue.common import holds_all, none_holds, refuse_existing
from mtvision.cli.common import add_plugin_option
from mtvision.recipe.config import load_config
from mtvision.recipe.plugins import load_plugins
from mtvision.recipe.schema.json_schema import config_schema
from mtvision.recipe.schema.reference import reference_page
from mtvision.recipe.shipped import ShippedConfig, named_config, shipped_configs, standalone_text
from mtvision.runtime.atomic import write_text

DESCRIPTION = """\
The configs that come with the suite. Every command takes their names instead of a file.

  mtvision configs list                          all of them, a line each
  mtvision configs list mtmamba nyud             those whose name or first line holds both words
  mtvision configs show mtmamba/mtmamba_tiny_synthetic_1xb8_300
  mtvision configs show NAME --completed         with every default filled in
  mtvision configs copy NAME my_config.py        a copy that works in any folder, to be changed
  mtvision configs schema --out schema.json      the JSON schema of configs, for editors
  mtvision configs reference --out page.md       every key and argument, as a page
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtvision configs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|copy|schema|reference")
    lister = actions.add_parser("list", help="names and first lines")
    lister.add_argument("words", nargs="*", help="show only configs that hold all of them")
    lister.add_argument("--json", action="store_true", help="print JSON")
    shower = actions.add_parser("show", help="the text of a config")
    shower.add_argument("name")
    shower.add_argument("--completed", action="store_true", help="with bases and defaults filled in")
    copier = actions.add_parser("copy", help="write a copy that works in any folder")
    copier.add_argument("name")
    copier.add_argument("target", nargs="?", type=Path, help="file or folder (default: here, under its name)")
    copier.add_argument("--overwrite", action="store_true", help="replace an existing file")
    for action, text in (("schema", "the JSON schema of configs"), ("reference", "every key, as a page")):
        writer = actions.add_parser(action, help=text)
        writer.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing it")
        if action == "schema":
            add_plugin_option(writer)
    arguments = parser.parse_args(argv)
    if arguments.action == "schema":
        load_plugins(arguments.plugin)
        _write(json.dumps(config_schema(), indent=1) + "\n", arguments.out)
    elif arguments.action == "reference":
        _write(reference_page(), arguments.out)
    elif arguments.action == "list":
        _list(arguments.words, as_json=arguments.json)
    elif arguments.action == "show":
        config = named_config(arguments.name)
        text = load_config(config.file).text if arguments.completed else config.file.read_text("utf-8")
        print(text.rstrip("\n"))
    else:
        print(_copy(named_config(arguments.name), arguments.target, overwrite=arguments.overwrite))
    return 0


def _write(text: str, target: Path | None) -> None:
    """To a file, or to the terminal."""
    if target is None:
        print(text, end="")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    print(target)


def _list(words: Sequence[str], *, as_json: bool) -> None:
    rows = [
        (item, item.summary) for item in shipped_configs() if holds_all(f"{item.name} {item.summary}", words)
    ]
    if as_json:
        entries = [
            {"name": item.name, "method": item.method, "summary": text, "file": str(item.file)}
            for item, text in rows
        ]
        print(json.dumps(entries, indent=2))
        return
    for item, text in rows:
        print(f"{item.name}\n    {text}")
    if not rows:
        print(none_holds("shipped config", words))


def _copy(config: ShippedConfig, target: Path | None, *, overwrite: bool) -> Path:
    """Write the copy and return its path.

    Raises:
        FileExistsError: it is there already.
    """
    place = target or Path()
    file = place / config.file.name if place.is_dir() else place
    refuse_existing([file], overwrite=overwrite)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, standalone_text(config))
    return file
