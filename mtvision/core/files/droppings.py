"""Files that programs leave in folders of data: system files, editor copies, partial downloads."""

from __future__ import annotations

import re

HIDDEN = "hidden"
SYSTEM = "system file"
SYSTEM_FOLDER = "system folder"
FORK = "resource fork"
EDITOR = "editor copy"
PARTIAL = "partial download"

SYSTEM_FILES = frozenset(
    {".ds_store", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", ".localized"}
)
SYSTEM_FOLDERS = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
        *(".appledouble", ".ipynb_checkpoints", "__pycache__"),
    }
)
"""Names in lower case; file systems of Windows and macOS do not keep the case."""

_PARTIAL = (".part", ".partial", ".crdownload", ".download", ".filepart", ".aria2", ".opdownload", ".!ut")
_EDITOR = ("~", ".swp", ".swo", ".swn", ".bak", ".orig", ".tmp")
_COPY = re.compile(
    r"(?: \(\d+\)| \([^()]*(?:copy|conflict|Kopie|copie|copia)[^()]*\)| - (?:Copy|Kopie)(?: \(\d+\))?"
    r"| copy(?: \d+)?|\.sync-conflict-[\w-]+)$",
    re.IGNORECASE,
)


def dropping(name: str, *, folder: bool = False) -> str | None:
    """Why a file or a folder of that name is no data; None if it may be.

    >>> [dropping(name) for name in ("a.png", "._a.png", "a.png~", ".a.png", "a (copy).png")]
    [None, 'resource fork', 'editor copy', 'hidden', None]
    """
    lower = name.lower()
    if folder:
        return SYSTEM_FOLDER if lower in SYSTEM_FOLDERS else HIDDEN if name[0] == "." else None
    if lower in SYSTEM_FILES:
        return SYSTEM
    if lower.endswith(_PARTIAL):
        return PARTIAL
    locked = name.startswith((".#", "~$", ".~lock."))
    if locked or lower.endswith(_EDITOR) or (name[0] == "#" and name[-1] == "#" and len(name) > 1):
        return EDITOR
    if name[0] == ".":
        return FORK if name.startswith("._") else HIDDEN
    return None


def original_of(name: str) -> str | None:
    """The name that a file manager copied, for names as `a (copy)` and `a - Kopie (2)`.

    >>> original_of("street/a (copy)"), original_of("a 1")
    ('street/a', None)
    """
    found = _COPY.search(name)
    return name[: found.start()] if found and found.start() else None
