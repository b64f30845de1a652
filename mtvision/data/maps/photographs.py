"""Photographs of 16 bits that use fewer: cut to 8 bits like others, they would be black."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.headers import PNG_SIGNATURE
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.maps.encoding import SAMPLED, spread
from mtvision.data.maps.files import read_map

MOST = 14
"""Sets of 16-bit photographs that use more bits are read as others are: their upper 8 bits."""
_DEEP = (".png", ".tif", ".tiff")


@dataclass(frozen=True)
class PhotographDepth:
    """How many bits the 16-bit photographs of a set use.

    Args:
        bits: 8 to 14.
    """

    bits: int

    @classmethod
    def of(cls, paths: Sequence[Path]) -> PhotographDepth | None:
        """From a sample of the files; None where none has 16 bits, or they use more than 14."""
        highest = 0
        for path in spread([item for item in paths if item.suffix.lower() in _DEEP], SAMPLED):
            stored = _deep(path)
            highest = max(highest, 0 if stored is None else int(stored.max()))
        return cls(max(highest.bit_length(), 8)) if 0 < highest < 2**MOST else None

    def read(self, path: Path) -> NDArray[np.uint8]:
        """RGB (H, W, 3), 8 bits; those of 16 bits divided by what the set uses.

        Raises:
            FileNotFoundError: there is no such file.
            DecodeError: it is unreadable, or uses more bits than the files that were looked at.
        """
        stored = _deep(path)
        if stored is None:
            return read_image(path)
        top = 2**self.bits - 1
        if stored.max() > top:
            raise DecodeError(
                f"{path}: holds {int(stored.max())}, but the 16-bit photographs that were looked at use "
                f"{self.bits} bits, 0..{top}. Store all photographs alike, best with 8 bits."
            )
        pixels = (stored.astype(np.float32) * np.float32(255 / top) + np.float32(0.5)).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3])

    def statement(self) -> str:
        """For fingerprints and people."""
        return f"16-bit photographs that use {self.bits} bits: v / {2**self.bits - 1}"


def _deep(path: Path) -> NDArray[Any] | None:
    """Numbers (H, W, C) of a file of 16 bits; None for other files and what cannot be read."""
    try:
        if path.suffix.lower() not in _DEEP:
            return None
        if path.suffix.lower() == ".png":
            with path.open("rb") as file:
                head = file.read(26)
            if not head.startswith(PNG_SIGNATURE) or head[24:25] != b"\x10":
                return None
        values = read_map(path).values
    except (DecodeError, OSError):
        return None
    return values if values.dtype == np.uint16 and values.shape[2] in (1, 3, 4) else None
