"""Files of pictures: read whole within the limits, refused where cut off or damaged, decoded by Pillow.

A truncated file is an error. Some decoders show half a picture without an error, and half a label gives a
wrong score.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtvision.core.files.foreign import DecodeError, ForeignError, foreign_errors, reading, stand_in
from mtvision.core.files.headers import JPEG_START, PNG_SIGNATURE, check_picture
from mtvision.core.files.limits import require_file_size

REMEDY = "Copy or unpack it again."
ORIENTATION = 0x0112
"""Tag of EXIF and TIFF."""
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


def read_bytes(path: Path) -> bytes:
    """Content of a file, within the limits of `mtvision.core.files.limits`.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it cannot be read, is empty, too large, or a PNG, JPEG or TIFF that was cut off. A
            picture whose header promises too many pixels is refused before it is decoded.
    """
    try:
        with reading(path, "not a file that can be read", "Check its permissions."), open(path, "rb") as file:
            require_file_size(path, os.fstat(file.fileno()).st_size)
            content = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file. Check the data set's root folder, and that unpacking or copying finished."
        ) from None
    if not content:
        raise DecodeError(f"{path}: the file is empty. Copy or unpack it again.")
    other = stand_in(content)
    if other is not None:
        raise DecodeError(f"{path}: {other}")
    # The last chunk of a PNG is IEND; in a JPEG the end marker follows the scan (thumbnails come first).
    cut_png = content.startswith(PNG_SIGNATURE) and content.rfind(b"IEND") < 0
    cut_jpeg = content.startswith(JPEG_START) and content.find(_JPEG_END, _first_scan(content)) < 0
    if cut_png or cut_jpeg:
        raise DecodeError(
            f"{path}: the file is truncated ({len(content)} bytes, no end marker). Copy or unpack it again."
        )
    check_picture(path, content)
    return content


def _first_scan(content: bytes) -> int:
    """Where the picture of a JPEG begins; of the last scan where its segments are odd.

    Phones append a film to a photograph, which may hold bytes like those of a scan.
    """
    place = 2
    while content[place : place + 1] == b"\xff" and place + 4 <= len(content):
        if content[place : place + 2] == _JPEG_SCAN:
            return place
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return max(content.rfind(_JPEG_SCAN), 0)


def load_picture(path: Path) -> NDArray[Any]:
    """Pixels of a picture as they are stored: (H, W), palette indices too, or (H, W, C).

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it cannot be read, is damaged or too large.
    """
    content = read_bytes(path)
    require_intact(path, content)
    with reading(path, "cannot be read", REMEDY), opened(content) as picture:
        return np.array(picture)


@contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """A picture of any size in Pillow, whose own limit of pixels has another message.

    The content has to be compared with the limits before, as `mtvision.data.decode.read_bytes` does.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(content)) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = before


def orientation_in(path: Path) -> int:
    """How a camera was held, 1 to 8, by EXIF or the tag of a TIFF; 1 also where a file does not say it."""
    try:
        with foreign_errors(), opened(path.read_bytes()) as image:
            return int(image.getexif().get(ORIENTATION, 1))
    except ForeignError:
        return 1


def require_intact(path: Path, content: bytes) -> None:
    """Refuse a PNG file with a damaged chunk.

    Raises:
        DecodeError: names the chunk.
    """
    damage = find_damage(content) if content.startswith(PNG_SIGNATURE) else None
    if damage:
        raise DecodeError(f"{path}: the file is damaged ({damage}). Copy or unpack it again.")


def find_damage(content: bytes) -> str | None:
    """First damage of a PNG file: a wrong checksum of a chunk, or no end; None = intact.

    Pillow skips the checksums of pixel data and shows what is left of a damaged file.
    """
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if zlib.crc32(content[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return f"wrong checksum of the {kind.decode('latin-1')!r} chunk at byte {position}"
        if kind == b"IEND":
            return None
        position = end + 4
    return "no end marker"
