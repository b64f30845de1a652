"""Limits on files of unknown origin, compared before anything is decoded or allocated.

The variable `MTVISION_LIMITS` of the environment changes them, also for worker processes and ranks:
`MTVISION_LIMITS="pixels=1e9 file_bytes=4GiB"`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from mtvision.core.files.foreign import DecodeError
from mtvision.core.naming import look_up

VARIABLE = "MTVISION_LIMITS"
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_VALUE = re.compile(r"([0-9.]+(?:e[0-9]+)?)\s*(ki|mi|gi|ti|k|m|g)?b?", re.IGNORECASE)


class TooLargeError(DecodeError):
    """A file is larger than the limits allow, or would be once decoded."""


@dataclass(frozen=True)
class FileLimits:
    """What a single file may need.

    Args:
        file_bytes: size of a file that is read whole. Checkpoints and archives are not.
        pixels: of a picture.
        decoded_bytes: of a picture, an array or the arrays of one archive, as it lies in memory.
    """

    file_bytes: int = 2**29
    pixels: int = 2**28
    decoded_bytes: int = 2**32


def file_limits() -> FileLimits:
    """The limits of this process.

    Raises:
        UnknownNameError: the environment's variable names another limit.
        ValueError: one of its values is no positive number.
    """
    return _parsed(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=4)
def _parsed(text: str) -> FileLimits:
    limits = FileLimits()
    for part in text.replace(",", " ").split():
        name, _, value = part.partition("=")
        look_up(f"limit in {VARIABLE}", name, {item.name: item for item in fields(FileLimits)})
        match = _VALUE.fullmatch(value)
        size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
        if size < 1:
            raise ValueError(
                f"{VARIABLE}: {name}={value!r} is no positive number. Write for example {name}=4e9 or "
                f"{name}=4GiB."
            )
        limits = replace(limits, **{name: size})
    return limits


def require_file_size(path: Path | str, size: int) -> None:
    """Refuse a file of more bytes than one may have.

    Raises:
        TooLargeError: names both sizes.
    """
    limit = file_limits().file_bytes
    if size > limit:
        raise _too_large(path, f"{in_units(size)}", in_units(limit), "file_bytes", size)


def require_pixels(path: Path | str, width: int, height: int) -> None:
    """Refuse a picture of more pixels than one may have.

    Raises:
        TooLargeError: names both numbers.
    """
    limit = file_limits().pixels
    if width * height > limit:
        found = f"{width} x {height} pixels"
        raise _too_large(path, found, f"{limit / 1e6:.3g} million", "pixels", width * height)


def require_decoded_size(path: Path | str, size: int) -> None:
    """Refuse what would take more memory than one file may.

    Raises:
        TooLargeError: names both sizes.
    """
    limit = file_limits().decoded_bytes
    if size > limit:
        raise _too_large(path, f"{in_units(size)} once decoded", in_units(limit), "decoded_bytes", size)


def _too_large(path: Path | str, found: str, limit: str, name: str, value: int) -> TooLargeError:
    return TooLargeError(
        f"{path}: {found}; expected at most {limit}. Reduce it, or allow more with the environment's "
        f'{VARIABLE}="{name}={_rounded(value)}".'
    )


def _rounded(value: int) -> str:
    digits = max(len(str(value)) - 2, 0)
    return f"{-(-value // 10**digits)}e{digits}"


def in_units(size: int) -> str:
    """Bytes for people.

    >>> in_units(300), in_units(2**29), in_units(2700000000)
    ('300 bytes', '512 MiB', '2.5 GiB')
    """
    if size < 2**10:
        return f"{size} bytes"
    unit, name = next(
        (unit, name) for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")) if size >= unit
    )
    return f"{size / unit:.1f} {name}".replace(".0 ", " ")
