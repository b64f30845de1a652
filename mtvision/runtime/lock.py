"""Locks between processes, on every system that filelock knows."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from filelock import lock_descriptor


def lock_file(path: Path, *, wait: bool = False) -> IO[bytes] | None:
    """Lock a file, which is made together with its folder; it stays when the lock is released.

    The lock ends when the returned file is closed by all processes that have it open: this one, and those
    that inherit the descriptor. A process that ends in any way, or is killed, closes its files.

    Args:
        path: the lock file; its content does not matter.
        wait: until another process releases the lock.

    Returns:
        The open file, or None if another process holds the lock and `wait` is False.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    held = False
    try:
        held = lock_descriptor(file.fileno(), blocking=wait)
    finally:
        if not held:
            file.close()
    return file if held else None
