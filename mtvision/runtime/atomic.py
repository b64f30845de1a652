"""Files that appear whole: whatever interrupts a write leaves the old file or the new one, never half of one.

Content goes to a temporary file beside the target, is flushed to the disk, and then takes the target's name.
Every result, table, checkpoint and cache of the package is written by this module.
"""

from __future__ import annotations

import itertools
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.\w+")
"""Names that `atomic_path` gives to its temporary files."""


@contextmanager
def atomic_path(path: str | Path, *, suffix: str = ".part", sync: bool = True) -> Iterator[Path]:
    """Empty temporary file that becomes `path` if the block ends without an exception; else it is removed.

    For writers that open a file by its name; `atomic_file` serves all others. The folder is made. The file
    gets the permissions of any new file (0666 without the umask). A symbolic link stays a link. A device or a
    pipe, such as `/dev/stdout`, is written directly.

    Args:
        path: the file to write.
        suffix: ending of the temporary file, for writers that choose the format by it.
        sync: flush to the disk before the file takes its name. Only for caches whose reader finds damage may
            this be False: after a power failure the file may be incomplete.

    Raises:
        OSError: the file cannot be written; the message names it, not the temporary one.
    """
    given = Path(path)
    if given.is_dir():
        raise IsADirectoryError(f"{given} is a folder. Give the path of a file.")
    if given.exists() and not given.is_file():
        yield given
        return
    target = Path(os.path.realpath(given))
    require_writable(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{suffix}")
    try:
        temporary.open("xb").close()  # not tempfile.mkstemp, whose files only the owner may read
        yield temporary
        if sync:
            _flush(temporary, os.O_RDWR)
        os.replace(temporary, target)
        if sync:
            with suppress(OSError):  # some systems cannot open or flush a folder
                _flush(target.parent, os.O_RDONLY)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, f"{error.strerror}: cannot be written", str(given)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: str | Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Binary file that becomes `path` if the block ends without an exception; arguments as `atomic_path`."""
    with atomic_path(path, sync=sync) as temporary, temporary.open("wb") as file:
        yield file


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text; line ends stay as they are.

    Raises:
        OSError: the file cannot be written.
    """
    write_bytes(path, text.encode())


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written; nothing is made.

    Args:
        folder: need not exist.

    Raises:
        OSError: it, or the folder in which it would be made, is a file or must not be written.
    """
    there = next(item for item in (folder.absolute(), *folder.absolute().parents) if item.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{folder} cannot be written: {there} is a file. Choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written: no permission in {there}. Choose another folder.")


def remove_temporaries(folder: Path) -> list[str]:
    """Remove what killed writes of this module left in a folder; returns the names.

    Only for a folder without another writer at the moment, because a write in progress would be lost.

    Raises:
        OSError: a file cannot be removed.
    """
    there = folder.iterdir() if folder.is_dir() else iter(())
    found = sorted(path for path in there if _TEMPORARY.fullmatch(path.name) and path.is_file())
    for path in found:
        path.unlink(missing_ok=True)
    return [path.name for path in found]


def set_aside(path: Path, word: str) -> Path:
    """Rename a file or folder to `NAME.WORD`, or `NAME.WORD-2` and so on where that exists.

    Raises:
        OSError: it cannot be renamed.
    """
    names = (f"{path.name}.{word}" + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
    target = next(place for name in names if not (place := path.with_name(name)).exists())
    os.replace(path, target)
    return target
