"""Failures inside libraries of others, as one line that names the file, the cause and the remedy."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 300
_OBJECT = re.compile(r" <_io\.[^>]*>")
"""What Pillow calls bytes that it knows no format of."""
LONGEST = 256
"""Bytes at the start of a file that tell."""
_POINTERS = (
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS instead of the file", "`git lfs pull`"),
    (b"/annex/objects/", "a pointer of git-annex instead of the file", "`git annex get .`"),
)
_PAGES = (b"<!doctype html", b"<html")


class DecodeError(ValueError):
    """A file exists but does not hold what was expected; the message names it and the remedy."""


class ForeignError(Exception):
    """What a library raised, as `Kind: message`.

    Args:
        error: the exception itself.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.error = error

    @property
    def first_line(self) -> str:
        """The text without what follows its first line."""
        return str(self).splitlines()[0]


@contextmanager
def foreign_errors(*passed: type[Exception]) -> Iterator[None]:
    """Turn every exception of a block into `ForeignError`; the block should be one call of a library.

    Args:
        passed: exceptions that stay as they are.

    Raises:
        ForeignError: the library failed.

    >>> with foreign_errors():
    ...     int("one")
    Traceback (most recent call last):
    mtvision.core.files.foreign.ForeignError: ValueError: invalid literal for int() with base 10: 'one'
    """
    try:
        yield
    except passed:
        raise
    # scipy.io, kornia-rs and unpicklers raise whatever damaged bytes lead them to. W&B and
    # submitit raise what a network or a job raised. No list of their exceptions would be complete.
    except Exception as error:
        raise ForeignError(error) from error


@contextmanager
def reading(
    path: Path | str, what: str, remedy: str, *, failure: type[Exception] = DecodeError
) -> Iterator[None]:
    """Whatever a library raises while it reads a file becomes `FILE: WHAT (cause). REMEDY`.

    Args:
        path: the file.
        what: what is wrong, e.g. `not a NumPy array`.
        remedy: a sentence: what to do next.
        failure: type of the error. One of this type, or a `DecodeError`, from the block stays as it is.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: this user may not read it.
        DecodeError: the library failed, or the path is a device or a pipe, which may never end; or `failure`
            where one is given.

    >>> with reading("a.mat", "not a MATLAB file", "Copy it again."):
    ...     raise KeyError("x")
    Traceback (most recent call last):
    mtvision.core.files.foreign.DecodeError: a.mat: not a MATLAB file (KeyError: 'x'). Copy it again.
    """
    if _is_endless(path):
        raise failure(f"{path}: a device or a pipe, expected a file. Store its content in a file.")
    try:
        with foreign_errors(failure, DecodeError):
            yield
    except ForeignError as foreign:
        if isinstance(foreign.error, FileNotFoundError):
            raise FileNotFoundError(f"{path}: no such file. Check the path.") from None
        if isinstance(foreign.error, PermissionError):
            raise PermissionError(f"{path}: permission denied. Let this user read the file.") from None
        other = stand_in_of(path)
        text = f"{what} ({cause(foreign.error)}). {remedy}" if other is None else other
        raise failure(f"{path}: {text}") from foreign.error


def _is_endless(path: Path | str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # opening it says why
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def cause(error: BaseException) -> str:
    """Why something failed, in one printable line of limited length without a full stop.

    >>> cause(KeyError("a")), cause(MemoryError()), cause(ValueError("odd\\nand more"))
    ("KeyError: 'a'", 'it needs more memory than there is', 'odd')
    """
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    text = _OBJECT.sub("", lines[0]) if lines else ""
    if not text or not isinstance(error, OSError | ValueError | RuntimeError | EOFError):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    printable = "".join(item if item.isprintable() else "?" for item in text)
    return printable[:_LONGEST].rstrip(" .")


def stand_in(start: bytes) -> str | None:
    """What a file is instead of data, and what to do; None if it is nothing of the kind.

    Args:
        start: the first bytes of a file.

    >>> stand_in(b"version https://git-lfs.github.com/spec/v1")
    'a pointer of Git LFS instead of the file. Run `git lfs pull` in its folder.'
    """
    for first, what, command in _POINTERS:
        if start.startswith(first):
            return f"{what}. Run {command} in its folder."
    if start[:1] in b"< \r\n\t\xef" and start[:LONGEST].lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(
        _PAGES
    ):
        return "a web page instead of the file, as after a failed download. Download it again."
    return None


def stand_in_of(path: Path | str) -> str | None:
    """As `stand_in`, of a file; None also where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return stand_in(file.read(LONGEST))
    except OSError:
        return None
