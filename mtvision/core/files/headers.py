"""Sizes of pictures from the first bytes of their files, before anything is allocated."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.limits import require_decoded_size, require_pixels
from mtvision.core.files.tiff import TIFF_STARTS, check_tiff

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
JPEG_SCAN = 0xDA
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers of a frame's header; the others are tables."""
_DEFLATE = 1040
"""Deflate packs at most 1032 bytes into one."""


@dataclass(frozen=True)
class PictureHeader:
    """What a file says about its picture.

    Args:
        width: in pixels.
        height: in pixels.
        bytes: of all pixels, decoded.
        least_bytes: that a whole file of this size has.
    """

    width: int
    height: int
    bytes: int
    least_bytes: int = 0


def check_picture(path: Path | str, content: bytes) -> None:
    """Refuse a picture whose header promises too much; files that are no pictures pass.

    Args:
        path: for messages.
        content: the whole file.

    Raises:
        TooLargeError: it has more pixels or decoded bytes than the limits allow.
        DecodeError: it promises more pixels than its bytes can hold, or a part of a TIFF lies behind the end.
    """
    if content.startswith(TIFF_STARTS):
        check_tiff(path, content)
        return
    header = picture_header(content)
    if header is None:
        return
    require_pixels(path, header.width, header.height)
    require_decoded_size(path, header.bytes)
    if header.least_bytes > len(content):
        raise DecodeError(
            f"{path}: the header promises {header.width} x {header.height} pixels, more than "
            f"{len(content)} bytes can hold. The file is damaged; copy or unpack it again."
        )


def picture_header(content: bytes) -> PictureHeader | None:
    """Header of a PNG, JPEG, WebP, BMP or GIF; None for other formats and where it is cut off."""
    try:
        if content.startswith(PNG_SIGNATURE):
            return _png(content)
        if content.startswith(JPEG_START):
            return _jpeg(content)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _webp(content)
        if content[:2] == b"BM":
            return _bmp(content)
        if content[:6] in (b"GIF87a", b"GIF89a"):
            width, height = struct.unpack_from("<HH", content, 6)
            return PictureHeader(width, height, 4 * width * height)
    except (struct.error, IndexError):
        return None
    return None


def _png(content: bytes) -> PictureHeader:
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    row = (width * bits * _PNG_CHANNELS.get(colour, 4) + 7) // 8
    return PictureHeader(width, height, row * height, (row + 1) * height // _DEFLATE)


def _jpeg(content: bytes) -> PictureHeader | None:
    place = 2
    while content[place] == 0xFF:
        marker = content[place + 1]
        if marker == JPEG_SCAN:
            return None
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", content, place + 4)
            return PictureHeader(width, height, width * height * channels * (1 + (bits > 8)))
        # Any number of 0xFF may stand before a marker.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def _webp(content: bytes) -> PictureHeader | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(content[24:27], "little")
        height = 1 + int.from_bytes(content[27:30], "little")
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", content, 21)
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        return None
    return PictureHeader(width, height, 4 * width * height)


def _bmp(content: bytes) -> PictureHeader:
    (size,) = struct.unpack_from("<I", content, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", content, 18)
    else:
        width, height = (abs(side) for side in struct.unpack_from("<ii", content, 18))
    return PictureHeader(width, height, 4 * width * height)
