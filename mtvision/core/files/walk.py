"""Walk through a folder of data by the one policy of the suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from mtvision.core.files.droppings import dropping

FILE, FOLDER = "file", "folder"
BROKEN = "broken link"
LOOP = "link to a folder that holds it"
SPECIAL = "device or pipe"
EMPTY = "empty folder with the name of a file"


class Item(NamedTuple):
    """What lies in a folder.

    Args:
        path: relative to the folder, with slashes.
        name: its last part.
        kind: `file`, `folder`, `broken link`, or the reason why it is left out.
    """

    path: str
    name: str
    kind: str


def walk(
    folder: Path,
    *,
    depth: int | None = None,
    without: Collection[str] = (),
    refused: Callable[[OSError], None] | None = None,
) -> Iterator[Item]:
    """Everything in a folder, by name; of each folder its files first.

    Linked files and folders are followed. A link to a folder that holds the link is left out. What programs
    leave behind is left out, see `mtvision.core.files.droppings`. A folder is yielded before what it holds.

    Args:
        folder: where to look.
        depth: how many levels of sub-folders are entered; None = all.
        without: real paths of folders that are passed over.
        refused: called when a folder cannot be listed; by default that is an error.

    Raises:
        OSError: a folder cannot be listed.
    """
    real = os.path.realpath(folder)
    yield from _walk(str(folder), "", (real,), depth, frozenset(without), refused)


def _walk(
    place: str,
    prefix: str,
    above: tuple[str, ...],
    depth: int | None,
    without: frozenset[str],
    refused: Callable[[OSError], None] | None,
) -> Iterator[Item]:
    folders = []
    try:
        with os.scandir(place) as entries:
            listed = sorted(entries, key=_name)
    except OSError as error:
        if refused is None:
            message = f"{place}: this folder cannot be listed ({error.strerror}). Check its permissions."
            raise type(error)(message) from error
        refused(error)
        return
    if prefix and not listed and "." in prefix.split("/")[-2]:
        yield Item(prefix[:-1], prefix.split("/")[-2], EMPTY)
    for entry in listed:
        name = entry.name
        if _is_folder(entry):
            folders.append(entry)
        else:
            yield Item(prefix + name, name, dropping(name) or _kind(entry))
    for entry in folders:
        name = entry.name
        path = prefix + name
        reason = dropping(name, folder=True)
        if reason is not None:
            yield Item(path + "/", name, reason)
            continue
        linked = entry.is_symlink()
        real = os.path.realpath(entry.path) if linked else os.path.join(above[-1], name)
        if real in without:
            continue
        if real in above or (linked and _holds(real, above[0])):
            yield Item(path + "/", name, LOOP)
            continue
        yield Item(path, name, FOLDER)
        if depth is None or depth > 0:
            below = None if depth is None else depth - 1
            yield from _walk(entry.path, f"{path}/", (*above, real), below, without, refused)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_file():
            return FILE
    except OSError:
        return BROKEN
    return BROKEN if entry.is_symlink() else SPECIAL


def _holds(outer: str, inner: str) -> bool:
    return inner.startswith(outer.rstrip(os.sep) + os.sep)
