"""NumPy files and zip archives of unknown origin: sizes first, checksums, no Python objects."""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import DecodeError, reading
from mtvision.core.files.limits import require_decoded_size, require_file_size

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LONGEST_HEADER = 10_000


def load_npy(
    path: Path, *, what: str = "not a plain NumPy array", failure: type[Exception] = DecodeError
) -> NDArray[Any]:
    """Array of a file that `numpy.save` wrote. A header that does not fit the size of the file is refused.

    Args:
        path: the file.
        what: what is wrong, for messages.
        failure: type of the error.

    Raises:
        FileNotFoundError: there is no such file.
        TooLargeError: the array is larger than the limits allow.
        DecodeError: it is no array, was cut off, or holds Python objects; or `failure` where one is given.
    """
    remedy = "Write it again with numpy.save of a numeric array, or copy it again."
    with reading(path, what, remedy, failure=failure), path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        require_decoded_size(path, size)
        shape, fortran, dtype = _header(file, size)
        values = np.fromfile(file, dtype=dtype, count=math.prod(shape))
        return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def npy_shape(path: Path) -> tuple[int, ...]:
    """Shape of the array in a file, from its header; raises as `load_npy`."""
    with reading(path, "not a plain NumPy array", "Copy it again."), path.open("rb") as file:
        return _header(file, path.stat().st_size)[0]


def _header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, type) of an array whose bytes end with the file.

    Raises:
        ValueError: they do not, or the array holds objects.
    """
    start = file.read(4)
    if not start:
        raise ValueError("the file is empty")
    if start.startswith(b"PK"):
        raise ValueError("it is a zip archive, as numpy.savez writes it")
    file.seek(-len(start), io.SEEK_CUR)
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    if version not in _HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format, which numbers do not need")
    shape, fortran, dtype = _HEADERS[version](file, max_header_size=_LONGEST_HEADER)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"shape {shape} of type {dtype}")
    promised, found = math.prod(shape) * dtype.itemsize, size - file.tell()
    if promised != found:
        raise ValueError(f"its header promises {promised} bytes of values, the file has {found}")
    return shape, fortran, dtype


def load_npz(path: Path, *, what: str = "not an archive of NumPy arrays") -> dict[str, NDArray[Any]]:
    """Arrays of a file that `numpy.savez` wrote. The checksum of every array is compared.

    Args:
        path: the file.
        what: what is wrong, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        TooLargeError: the file, or its arrays together, are larger than the limits allow.
        DecodeError: it is no archive of arrays, is damaged, holds Python objects, or two arrays of one name.
    """
    with reading(path, what, "Write it with numpy.savez, or copy it again."):
        require_file_size(path, path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            twice = _repeated(archive.namelist())
            if twice is not None:
                raise ValueError(f"'{twice}' is in it twice")
            require_decoded_size(path, sum(member.file_size for member in members))
            return {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    content = archive.read(member)  # whole, which is what compares the checksum
    file = io.BytesIO(content)
    shape, fortran, dtype = _header(file, len(content))
    values = np.frombuffer(content, dtype, math.prod(shape), file.tell()).copy()
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _repeated(names: Sequence[str]) -> str | None:
    """The first name that occurs twice."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def zip_damage(path: Path) -> str | None:
    """First damage of a zip file: a wrong checksum, or a name used twice; None = intact, or no zip file.

    A file that begins like a zip file but has no directory was cut off.

    Raises:
        zipfile.BadZipFile, OSError, ...: the directory is damaged; see `mtvision.core.files.foreign.reading`.
    """
    with path.open("rb") as file:
        begins = file.read(4) == b"PK\x03\x04"
    if not begins and not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        twice = _repeated(archive.namelist())
        if twice is not None:
            return f"'{twice}' is in it twice"
        bad = archive.testzip()
        return None if bad is None else f"wrong checksum of '{bad}'"


def write_npz(file: BinaryIO, arrays: Mapping[str, NDArray[Any]], level: int = 1) -> None:
    """Write what `numpy.savez_compressed` writes, at another level, part by part.

    Maps of real numbers deflate hardly at all. Level 1 takes four fifths of the time of NumPy's 6 and gives
    files that are 1 % larger. Arrays that lie in a file are not read into memory.

    Args:
        file: open for writing.
        arrays: {name: array without Python objects}.
        level: of zlib, 0 to 9.

    >>> file = io.BytesIO()
    >>> write_npz(file, {"depth": np.ones((1, 2, 2), np.float32)})
    >>> np.load(io.BytesIO(file.getvalue()))["depth"].shape
    (1, 2, 2)
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)
