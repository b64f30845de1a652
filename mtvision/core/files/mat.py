"""MATLAB files of unknown origin: sizes and checksums before scipy reads them."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtvision.core.files.foreign import DecodeError, reading
from mtvision.core.files.limits import file_limits, require_decoded_size, require_file_size

_HEADER = 128
_SHAPE, _FLAGS, _NAME, _MATRIX, _COMPRESSED = 5, 6, 1, 14, 15
"""Types of elements."""
_NUMBERS = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 12, 13))
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE = 1, 2, 3, 4, 5
_OPAQUE = frozenset((16, 17, 18))
"""Classes of matrices that scipy leaves unread: functions and objects of MATLAB's own."""
_CLASSES: dict[int, frozenset[int]] = {
    _CELL: frozenset((_MATRIX,)),
    _STRUCT: frozenset((5, 1, _MATRIX)),
    _OBJECT: frozenset((5, 1, _MATRIX)),
    _CHAR: _NUMBERS | {16, 17, 18},
    _SPARSE: _NUMBERS,
    **dict.fromkeys(range(6, 16), _NUMBERS),
    **dict.fromkeys(_OPAQUE, _NUMBERS | {_MATRIX}),
}
"""{class of a matrix: types of elements behind its name}."""
_DEEPEST = 64


def load_mat(
    path: Path,
    names: Sequence[str] | None = None,
    *,
    remedy: str = "Copy or download it again.",
    failure: type[Exception] = DecodeError,
) -> dict[str, Any]:
    """Variables of a MATLAB file up to version 7; checksums of compressed variables are compared.

    Args:
        path: the file.
        names: of the variables; None = all.
        remedy: a sentence for messages.
        failure: type of the error.

    Raises:
        FileNotFoundError: there is no such file.
        TooLargeError: it, or what it unpacks to, is larger than the limits allow.
        DecodeError: it is damaged, or of version 7.3; or `failure` where one is given.
    """
    from scipy.io import loadmat  # takes half a second

    with reading(path, "not a readable MATLAB file", remedy, failure=failure):
        require_file_size(path, path.stat().st_size)
        content = path.read_bytes()
        if content.startswith(b"\x89HDF") or content[124:126] in (b"\x00\x02", b"\x02\x00"):
            raise failure(f"{path}: MATLAB 7.3 files are not read; save it with -v7.")
        _check(path, content)
        variables: dict[str, Any] = loadmat(path, variable_names=None if names is None else list(names))
    return variables


def _check(path: Path, content: bytes) -> None:
    """Compare sizes and checksums of a file of version 5 to 7; older ones have neither.

    Raises:
        ValueError: a variable is cut off or damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        return
    total = 0
    for compressed, element in _elements(content, order):
        if compressed:
            unpacker = zlib.decompressobj()
            matrix = unpacker.decompress(element, file_limits().decoded_bytes)
            if not unpacker.eof:
                raise ValueError("a compressed variable is cut off, or larger than the limit")
        else:
            matrix = element
        total += len(matrix)
        require_decoded_size(path, total)
        if compressed:
            kind, size = struct.unpack_from(f"{order}II", matrix)
            matrix = matrix[8 : 8 + size]
            if kind != _MATRIX:
                continue
        _require_plausible(matrix, order)


def _elements(content: bytes, order: str) -> Iterator[tuple[bool, bytes]]:
    """(whether compressed, bytes) of the variables."""
    place = _HEADER
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        end = place + 8 + size
        if end > len(content):
            raise ValueError(f"a variable ends at byte {end} of {len(content)}")
        if kind in (_MATRIX, _COMPRESSED):
            yield kind == _COMPRESSED, content[place + 8 : end]
        place = end


def _require_plausible(matrix: bytes, order: str, depth: int = 0) -> None:
    """Refuse a matrix that scipy would crash on: types it has no table for, more entries than bytes.

    Raises:
        ValueError: says what is odd about it.
    """
    if not matrix:
        return
    if depth > _DEEPEST:
        raise ValueError(f"variables inside variables, more than {_DEEPEST} deep")
    parts = list(_parts(matrix, order))
    kind = struct.unpack_from(f"{order}I", matrix, 8)[0] & 0xFF
    if [part[0] for part in parts[:1]] != [_FLAGS] or kind not in _CLASSES:
        raise ValueError(f"a variable of the unknown class {kind}")
    inside = parts[1:] if kind in _OPAQUE else parts[3:]
    if kind not in _OPAQUE:
        _require_shape(matrix, order, parts, kind)
    for number, content in inside:
        if number not in _CLASSES[kind]:
            raise ValueError(f"values of the unknown type {number} in a variable of class {kind}")
        if number == _MATRIX:
            _require_plausible(content, order, depth + 1)


def _require_shape(matrix: bytes, order: str, parts: list[tuple[int, bytes]], kind: int) -> None:
    if [part[0] for part in parts[1:3]] != [_SHAPE, _NAME]:
        raise ValueError("a variable without shape or name")
    shape = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1][: len(parts[1][1]) // 4 * 4])
    if min(shape, default=0) < 0 or (kind != _SPARSE and math.prod(shape) > len(matrix)):
        raise ValueError(f"a variable of shape {shape} in {len(matrix)} bytes")


def _parts(matrix: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of the elements of a matrix; up to four bytes lie inside the tag itself."""
    place = 0
    while place + 8 <= len(matrix):
        kind, size = struct.unpack_from(f"{order}II", matrix, place)
        start = place + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            if size > 4:
                raise ValueError(f"an element of {size} bytes in 4")
            place += 8
        else:
            place = start + size + (-size % 8 if kind != _MATRIX else 0)
        if start + size > len(matrix):
            raise ValueError("a part of a variable is cut off")
        yield kind, matrix[start : start + size]
