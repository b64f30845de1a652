"""Read a JSON file of unknown origin, within a limit of bytes."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import IO, Any, NoReturn

from mtvision.core.files.foreign import LONGEST, DecodeError, reading, stand_in
from mtvision.core.files.limits import VARIABLE, file_limits
from mtvision.core.files.text import decoded

_PART = 2**20
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_MANY_DIGITS = re.compile(rb"[0-9]{300}")
"""No real number of 64 bits has so many; `float` of such an integer overflows."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path, *, most_bytes: int | None = None, strict: bool = False) -> Any:
    """Content of a JSON file, also gzipped, in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Args:
        path: the file.
        most_bytes: limit of its size, unpacked; None = that of `mtvision.core.files.limits`.
        strict: refuse what Python's reader accepts and others do not: NaN and Infinity, integers of 300
            digits, half a character (a lone surrogate).

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is too large, no complete JSON, in another encoding, nested too deeply, or has a key
            twice in one object.
    """
    content = _read(path, most_bytes)
    if not content.strip(b" \t\r\n\0"):
        raise DecodeError(f"{path}: the file is empty. Copy it or export it again.")
    options: dict[str, Any] = {"parse_constant": _no_constant} if strict else {}
    if strict and _MANY_DIGITS.search(content):
        options["parse_int"] = _short_integer
    try:
        with reading(path, "not a complete JSON file", "Copy it again."):
            found = json.loads(_text(content, path), object_pairs_hook=_object, **options)
            if strict and _SURROGATE.search(content):
                _require_whole_characters(found)
            return found
    except _RepeatedKeyError as error:
        raise DecodeError(
            f"{path}: one object has the key '{error.key}' twice, and readers keep either. Remove one."
        ) from None


def _text(content: bytes, path: Path) -> str:
    """Text in the encoding that the first bytes show, with or without a byte-order mark."""
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        other = stand_in(content[:LONGEST])
        if other is not None:
            raise DecodeError(f"{path}: {other}") from error
        try:
            return decoded(content, str(path))
        except ValueError as failure:  # names the encoding and the line
            raise DecodeError(str(failure)) from error


def _read(path: Path, most_bytes: int | None) -> bytes:
    most = file_limits().file_bytes if most_bytes is None else most_bytes
    remedy = (
        f'allow more with the environment\'s {VARIABLE}="file_bytes=..."'
        if most_bytes is None
        else "raise the limit (limits={'file_bytes': ...})"
    )
    with reading(path, "cannot be read", "Expected a JSON file; copy it again."):
        _require_size(path, path.stat().st_size, most, remedy)
        content = path.read_bytes()
        if content.startswith(_GZIP):
            with gzip.open(path) as file:  # compares the checksum at the end
                content = _at_most(file, most + 1)
            _require_size(path, len(content), most, remedy)
    if content.startswith(_ZIP):
        raise DecodeError(f"{path}: this is a zip archive. Unpack it, and name the JSON file inside.")
    return content


def _at_most(file: IO[bytes] | gzip.GzipFile, size: int) -> bytes:
    """So many bytes of a stream, or all; `read(size)` would reserve memory for all of them at once."""
    parts, left = [], size
    while left and (part := file.read(min(left, _PART))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _require_size(path: Path, size: int, most_bytes: int, remedy: str) -> None:
    if size > most_bytes:
        raise DecodeError(
            f"{path}: {size} bytes or more; the limit is {most_bytes}. Split the file, or {remedy}."
        )


class _RepeatedKeyError(DecodeError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _short_integer(text: str) -> int:
    if len(text) >= 300:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _require_whole_characters(found: Any) -> None:
    """Refuse half of a character, which no file and no terminal could show."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a character (a lone surrogate) in a text") from None
