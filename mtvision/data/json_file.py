"""Read a JSON file of unknown origin, within a limit of bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from mtvision.data.decode import DecodeError

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


def read_json(path: Path, *, most_bytes: int) -> Any:
    """Content of a JSON file, also gzipped, in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Args:
        path: the file.
        most_bytes: limit of its size, unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is too large, no complete JSON, in another encoding, or has a key twice in one object.
    """
    content = _read(path, most_bytes)
    if not content.strip(b" \t\r\n\0"):
        raise DecodeError(f"{path}: the file is empty. Copy it or export it again.")
    try:
        return json.loads(content, object_pairs_hook=_object)
    except _RepeatedKeyError as error:
        raise DecodeError(
            f"{path}: one object has the key '{error.key}' twice, and readers keep either. Remove one."
        ) from None
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"{path}: the text is not UTF-8, UTF-16 or UTF-32 ({error}). Save it again as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise DecodeError(f"{path}: not a complete JSON file ({error}). Copy it again.") from None


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        _require_size(path, size, most_bytes)
        content = path.read_bytes()
        if content.startswith(_GZIP):
            with gzip.open(path) as file:
                content = file.read(most_bytes + 1)
            _require_size(path, len(content), most_bytes)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file. Check the path.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DecodeError(f"{path}: cannot be read ({error}). Expected a JSON file; copy it again.") from None
    if content.startswith(_ZIP):
        raise DecodeError(f"{path}: this is a zip archive. Unpack it, and name the JSON file inside.")
    return content


def _require_size(path: Path, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise DecodeError(
            f"{path}: {size} bytes or more; the limit is {most_bytes}. Split the file, or raise the limit "
            "(limits={'file_bytes': ...})."
        )


class _RepeatedKeyError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return found
