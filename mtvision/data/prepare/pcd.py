"""Point clouds of the Point Cloud Library: PCD files whose fields are compressed with LZF."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import DecodeError, reading
from mtvision.core.files.limits import require_decoded_size, require_file_size

_TYPES = {("U", 1): "u1", ("U", 2): "<u2", ("U", 4): "<u4", ("I", 4): "<i4", ("F", 4): "<f4", ("F", 8): "<f8"}
_LONGEST_HEADER = 4096
REMEDY = "Download it again."


@dataclass(frozen=True)
class Cloud:
    """One point cloud.

    Args:
        width: columns; of a cloud that is not organised, the number of points.
        height: rows; 1 where the points do not lie on the pixels of a picture.
        fields: {name: (height, width) values}.
    """

    width: int
    height: int
    fields: dict[str, NDArray[np.generic]]


def read_pcd(path: Path) -> Cloud:
    """A point cloud of version 0.7 with `DATA binary_compressed` and one value a field.

    Raises:
        FileNotFoundError: there is no such file.
        TooLargeError: it, or what it unpacks to, is larger than the limits allow.
        DecodeError: it is no such file, or damaged.
    """
    with reading(path, "not a readable PCD file", REMEDY):
        require_file_size(path, path.stat().st_size)
        content = path.read_bytes()
        header, start = _header(content)
        if header["DATA"] != ["binary_compressed"]:
            raise DecodeError(f"{path}: DATA is {header['DATA']}, expected binary_compressed. {REMEDY}")
        if set(header["COUNT"]) != {"1"}:
            raise DecodeError(f"{path}: COUNT is {header['COUNT']}, expected one value a field. {REMEDY}")
        names = header["FIELDS"]
        if len(set(names)) != len(names):
            raise DecodeError(f"{path}: FIELDS names one twice: {' '.join(names)}. {REMEDY}")
        width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
        kinds = zip(header["TYPE"], map(int, header["SIZE"]), strict=True)
        types = [np.dtype(_TYPES[kind]) for kind in kinds]
        expected = width * height * sum(kind.itemsize for kind in types)
        require_decoded_size(path, expected)
        packed, unpacked = struct.unpack_from("<II", content, start)
        if unpacked != expected:
            raise DecodeError(f"{path}: unpacks to {unpacked} bytes, its header says {expected}. {REMEDY}")
        plain = unpack_lzf(content[start + 8 : start + 8 + packed], unpacked)
        fields, place = {}, 0
        for name, kind in zip(names, types, strict=True):  # field by field, not point by point
            values = np.frombuffer(plain, kind, width * height, place)
            fields[name] = values.reshape(height, width)
            place += values.nbytes
    return Cloud(width, height, fields)


def _header(content: bytes) -> tuple[dict[str, list[str]], int]:
    """{word: values} of the lines up to DATA, and where the data begin."""
    end = content.index(b"\n", content.index(b"\nDATA ", 0, _LONGEST_HEADER) + 1) + 1
    lines = [line.decode("ascii").split() for line in content[:end].split(b"\n")]
    return {line[0]: line[1:] for line in lines if line and not line[0].startswith("#")}, end


def unpack_lzf(packed: bytes, size: int) -> bytes:
    """What LZF (Lehmann's liblzf) compressed.

    A byte n below 32 stands before n + 1 literals. Any other byte announces a repeated part. Its upper three
    bits hold the length of the part, its lower five the upper bits of the distance back to it.

    Args:
        packed: compressed bytes.
        size: of the result.

    Raises:
        ValueError: the bytes are damaged or cut off.
    """
    result = bytearray()
    place, end = 0, len(packed)
    while place < end and len(result) <= size:
        control = packed[place]
        place += 1
        if control < 32:
            result += packed[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += packed[place]
            place += 1
        first = len(result) - ((control & 31) << 8) - packed[place] - 1
        place += 1
        length += 2
        if first < 0:
            raise ValueError("a repeated part lies before the beginning")
        part = result[first : first + length]
        # a part may reach into itself: then its bytes repeat
        result += part if len(part) == length else (part * (length // len(part) + 1))[:length]
    if len(result) != size or place != end:
        raise ValueError(f"unpacks to {len(result)} bytes, expected {size}")
    return bytes(result)
