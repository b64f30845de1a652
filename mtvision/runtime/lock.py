"""Locks between processes, on every system that filelock knows."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from filelock import lock_descriptor, unlock_descriptor

from mtvision.core.naming import ReportedError
from mtvision.runtime.atomic import write_text

_log = logging.getLogger("mtvision")

LOCK_FILE = ".train.lock"
HOLDER_FILE = "running.json"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What a file system answers that cannot lock."""

_held: dict[tuple[int, Path], IO[bytes] | None] = {}
"""{(thread, folder): open lock file} of this process."""


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


class BusyError(ReportedError, RuntimeError):
    """Another process works in a folder that only one may work in."""

    exit_code = 1


@dataclass(frozen=True)
class Holder:
    """Who works in a folder.

    Args:
        host: name of the machine.
        pid: number of the process there.
        started: UTC time.
        command: command line.
    """

    host: str
    pid: int
    started: str
    command: str

    @classmethod
    def this_process(cls) -> Holder:
        """This one, from now on."""
        started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(platform.node(), os.getpid(), started, shlex.join(sys.argv)[:500])

    @classmethod
    def of(cls, folder: Path) -> Holder | None:
        """The last one that took a folder's lock and did not release it; None if no file says so."""
        try:
            found = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
            return cls(str(found["host"]), int(found["pid"]), str(found["started"]), str(found["command"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started} ({self.command})"

    def lives_here(self) -> bool:
        """Whether it is a living process of this machine, but not this one."""
        if self.host != platform.node() or self.pid == os.getpid():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # somebody else's process
            return True
        return True


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Work in a folder that other processes must not enter; the folder is made.

    `running.json` names the holder. The operating system releases the lock when the process ends in any way,
    so that a lock which a killed process left is taken over. A thread that holds it may enter again.
    Processes that are forked meanwhile (data workers) do not hold it.

    Where the file system has no locks, a line says so, and only a living process of this machine is noticed.

    Raises:
        BusyError: another process holds it; the message says who.
        OSError: the folder cannot be written.
    """
    key = threading.get_ident(), folder.resolve()
    if key in _held:
        yield
        return
    _held[key] = file = _taken(folder)
    try:
        write_text(folder / HOLDER_FILE, json.dumps(asdict(Holder.this_process()), indent=2) + "\n")
        yield
    finally:
        del _held[key]
        (folder / HOLDER_FILE).unlink(missing_ok=True)
        if file is not None:
            unlock_descriptor(file.fileno())  # for all processes that have the descriptor, too
            file.close()


def remove_stale_holder(folder: Path) -> None:
    """Remove `running.json` of a process that has ended; nothing if there is none or the folder is in use."""
    if (folder / HOLDER_FILE).exists():
        with suppress(BusyError, OSError), holding(folder):
            return


def _taken(folder: Path) -> IO[bytes] | None:
    """The open lock file; None where there are no locks."""
    file, has_locks = None, True
    try:
        file = lock_file(folder / LOCK_FILE)
    except NotImplementedError:
        has_locks = False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        has_locks = False
    holder = Holder.of(folder)
    if file is None and (has_locks or (holder is not None and holder.lives_here())):
        who = "another process" if holder is None else str(holder)
        raise BusyError(
            f"{folder} is in use by {who}. Wait until it has ended, stop it, or choose another --work-dir."
        )
    if not has_locks:
        _log.warning("the file system of %s has no locks: two runs would not notice one another.", folder)
    elif holder is not None:
        _log.warning("%s: the lock of %s is taken over; that process has ended.", folder, holder)
    return file


def _forget() -> None:
    """In a forked process: the lock is its parent's alone and ends with it."""
    for file in _held.values():
        if file is not None:
            file.close()
    _held.clear()


if os.name != "nt":
    os.register_at_fork(after_in_child=_forget)
