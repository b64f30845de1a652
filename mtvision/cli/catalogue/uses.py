"""Which shipped configs name a component: themselves, or in what they take from a base."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from mtvision.recipe.shipped import shipped_configs


def uses_of(name: str) -> list[str]:
    """Names of the shipped configs whose text, or the assignments that they import, hold a quoted name."""
    pattern = re.compile(rf"[\"']{re.escape(name)}[\"']")
    return [config.name for config in shipped_configs() if pattern.search(_text(config.file))]


def _text(file: Path) -> str:
    """A config, and the assignments of its bases that it imports."""
    imported = {(base, item) for base, names in _imports(file) for item in names}
    return "\n".join([file.read_text("utf-8"), *(_assigned(*item) for item in sorted(imported))])


@cache
def _assigned(file: Path, name: str) -> str:
    """The assignments of a name in a base, with those of the names in them, there or in further bases."""
    text = file.read_text("utf-8")
    found = [node for node in ast.parse(text).body if name in _targets(node)]
    parts = [ast.get_source_segment(text, node) or "" for node in found]
    for base, names in _imports(file):
        parts += [_assigned(base, item) for item in names if item == name]
    inner = {node.id for item in found for node in ast.walk(item) if isinstance(node, ast.Name)} - {name}
    return "\n".join([*parts, *(_assigned(file, item) for item in sorted(inner))])


def _targets(node: ast.stmt) -> set[str]:
    """Names that a statement assigns, or whose value it updates."""
    if isinstance(node, ast.Assign):
        return {item.id for item in node.targets if isinstance(item, ast.Name)}
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            return {called.value.id}
    return set()


@cache
def _imports(file: Path) -> list[tuple[Path, list[str]]]:
    """(base, names) of every relative import."""
    found = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            folder = file.parents[node.level - 1]
            base = folder.joinpath(*node.module.split(".")).with_suffix(".py")
            found.append((base, [item.name for item in node.names]))
    return found
