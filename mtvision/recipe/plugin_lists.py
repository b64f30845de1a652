"""The plugins of a config: those of its bases, its own, and those of the command line."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtvision.core.values import check_value
from mtvision.recipe.plugins import resolve_plugin
from mtvision.recipe.shipped import package_folder


def every_plugin(file: Path, given: Any, more: Sequence[str]) -> list[str]:
    """Names of modules and absolute paths, each once, in the order in which they are loaded.

    A relative path starts at the folder of the file that states it. Lists add up: a config need not repeat
    those of its bases.

    Args:
        file: the config.
        given: its completed `plugins`.
        more: `--plugin`; relative paths start at the working folder.

    Raises:
        ValueError: `given` is no list of texts.
        PluginError: there is no such file or module.
    """
    check_value("plugins", given, list[str])
    stated = [
        (text, path.parent)
        for path in files_of(file)
        for node in _statements(path)
        for text in _literals(node, "plugins")
    ]
    texts = {text for text, _ in stated}
    stated += [(text, file.parent) for text in given if text not in texts]
    stated += [(text, Path.cwd()) for text in more]
    return list(dict.fromkeys(resolve_plugin(text, folder) for text, folder in stated))


def files_of(file: Path) -> list[Path]:
    """A config and the files it inherits from, those first, each once."""
    found: dict[Path, Path] = {}
    _collect(file, found, set())
    return list(found.values())


def _collect(file: Path, found: dict[Path, Path], seen: set[Path]) -> None:
    if file.resolve() in seen or not file.is_file():
        return
    seen.add(file.resolve())
    for node in _statements(file):
        for base in _bases(node, file.parent):
            _collect(base, found, seen)
    found[file.resolve()] = file


def _statements(file: Path) -> list[ast.stmt]:
    """Of a Python config; JSON and YAML have none, and their plugins are in the completed config."""
    return ast.parse(file.read_text(encoding="utf-8")).body if file.suffix == ".py" else []


def _bases(node: ast.stmt, folder: Path) -> Iterator[Path]:
    """Files that a statement inherits from: `_base_ = [...]`, or imports below `with read_base()`."""
    yield from (folder / text for text in _literals(node, "_base_"))
    if not isinstance(node, ast.With) or ast.unparse(node.items[0].context_expr) != "read_base()":
        return
    for item in node.body:
        if isinstance(item, ast.ImportFrom) and item.module and item.level:
            start = folder.joinpath(*[".."] * (item.level - 1))
            yield start.joinpath(*item.module.split(".")).with_suffix(".py")
        elif isinstance(item, ast.ImportFrom) and item.module:
            package, *inner = item.module.split(".")
            yield Path(package_folder(package), *inner).with_suffix(".py")


def _literals(node: ast.stmt, name: str) -> list[str]:
    """The texts that an assignment writes out; a computed value is in the completed config."""
    if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != name:
        return []
    try:
        value = ast.literal_eval(node.value)
    except ValueError:
        return []
    values = value if isinstance(value, list | tuple) else [value]
    return [text for text in values if isinstance(text, str)]
