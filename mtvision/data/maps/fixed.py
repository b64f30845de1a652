"""Readers of published layouts, whose encoding is known and needs no look at the set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.headers import PNG_SIGNATURE
from mtvision.core.files.pictures import read_bytes, require_intact
from mtvision.data.decode import read_image
from mtvision.data.maps.files import png_numbers
from mtvision.data.pictures import decode_by_opencv
from mtvision.data.png import GRAY, PALETTE, decode_png

NORMAL_OF_BYTE = (2.0 * np.arange(256, dtype=np.float32) / np.float32(255.0) - np.float32(1.0)).astype(
    np.float32
)
"""2 v / 255 - 1 for each of the 256 values."""


def read_label_png(path: Path) -> NDArray[Any]:
    """Integer map (H, W), uint8 or uint16, of a one-channel PNG: gray values, or palette indices.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no PNG, or a colour picture.
    """
    content = read_bytes(path)
    _require_png(path, content, "a label map")
    colour = content[25]
    if colour not in (PALETTE, GRAY):
        raise DecodeError(
            f"{path}: the label file is a colour picture; expected a one-channel PNG (gray values or palette "
            "indices = class ids). Convert colours to class ids first."
        )
    return png_numbers(path, content)


def read_deep_png(path: Path, what: str, remedy: str) -> NDArray[np.uint16]:
    """Numbers (H, W) of a one-channel PNG of 16 bits.

    Args:
        path: the file.
        what: what it is, e.g. `a depth file`, for messages.
        remedy: a sentence: where the original is.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no PNG, has colours, or fewer bits.
    """
    stored = read_label_png(path)
    if stored.dtype != np.uint16:
        raise DecodeError(
            f"{path}: {what} has 16 bits per pixel, this one has 8. Some program rewrote it and its numbers "
            f"are lost. {remedy}"
        )
    return stored


def read_gray(path: Path) -> NDArray[Any]:
    """One-channel picture (H, W) of any format, uint8 or uint16, e.g. a soft map in 0..255.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no picture, or has colours.
    """
    content = read_bytes(path)
    gray = decode_png(content)
    if gray is None:
        require_intact(path, content)
        gray = decode_by_opencv(path, content)
    if gray is None:
        raise DecodeError(f"{path}: not a readable picture. Copy or unpack it again.")
    if gray.ndim == 3:
        if (gray[..., :1] != gray[..., :3]).any():
            raise DecodeError(f"{path}: expected a gray picture, got one with colours. Convert it to gray.")
        gray = gray[..., 0]
    return np.asarray(gray)


def read_normals_png(path: Path) -> NDArray[np.float32]:
    """Normals (H, W, 3) from an 8-bit RGB file, 2 v / 255 - 1 per channel, not re-normalised.

    8 bits cannot hold an exact zero, so no pixel is "no label" here; length errs by up to 0.7 degrees' worth
    of rounding.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no picture.
    """
    return np.asarray(cv2.LUT(read_image(path), NORMAL_OF_BYTE), dtype=np.float32)


def _require_png(path: Path, content: bytes, what: str) -> None:
    if not content.startswith(PNG_SIGNATURE) or len(content) < 33:
        raise DecodeError(
            f"{path}: {what} must be a PNG (lossless), this file is not one. "
            "JPEG changes ids; export the labels again as PNG."
        )
