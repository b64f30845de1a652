"""Names of files: Unicode forms, upper and lower case, and the name of a split in a path."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), in which names are compared.

    macOS stores "é" as two characters, Windows and Linux as one.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def of_split(path: str, split: str) -> str:
    """The path with `{split}` replaced; other braces are part of the name.

    >>> of_split("a{1}/{split}", "val")
    'a{1}/val'
    """
    return path.replace("{split}", split)


def stored(path: Path) -> Path:
    """The path as it is on disk, if its names differ only in the Unicode form; else the path itself."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    parent = stored(path.parent)
    names = _listing(parent)
    same = [name for name in names if composed(name) == composed(path.name)]
    return parent / (same[0] if same else path.name)


def case_hint(path: Path) -> str:
    """A sentence about a file or folder that differs only in case, ending in a blank; else an empty text."""
    same = differs_in_case(path.name, _listing(path.parent))
    return f"There is '{same}', which differs in upper and lower case. " if same else ""


def differs_in_case(name: str, others: Iterable[str]) -> str | None:
    """The first of `others` that is `name` but for upper and lower case."""
    folded = composed(name).casefold()
    return next((other for other in others if other != name and composed(other).casefold() == folded), None)


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
