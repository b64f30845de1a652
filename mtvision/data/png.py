"""PNG pictures by the decoder of kornia-rs, which takes less than half of libpng's time.

Decoding is the largest part of what a training sample costs. Without the package, and for rarer kinds of PNG,
the caller's own decoder does the work, with the same result.
"""

from __future__ import annotations

import logging
import multiprocessing
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.files.headers import PNG_SIGNATURE
from mtvision.core.files.limits import file_limits

_logger = logging.getLogger("mtvision")

GRAY, RGB, PALETTE = 0, 2, 3
"""PNG colour types."""

_MODES = {(8, GRAY): "mono", (16, GRAY): "mono", (8, RGB): "rgb"}
_HEADER_END = 33  # signature and IHDR with its checksum


@lru_cache(maxsize=1)
def fast_decoders() -> dict[int, Callable[..., NDArray[Any]]]:
    """{bits: decoder}; empty where the package is missing, which one line in the log then says."""
    try:
        from kornia_rs import io

        return {8: io.decode_image_png_u8, 16: io.decode_image_png_u16}
    except (ImportError, AttributeError) as error:
        if multiprocessing.parent_process() is None:  # not once more from every worker
            _logger.warning(
                "PNG files are decoded by OpenCV, which takes more than twice the time: %s. "
                "`pip install 'kornia-rs>=0.2,<0.3'`",
                error,
            )
        return {}


def decode_png(content: bytes) -> NDArray[Any] | None:
    """Gray values (H, W), uint8 or uint16, or RGB (H, W, 3), uint8, of a PNG file.

    The checksum of every chunk up to the last pixel is verified, and with it each byte of the compressed
    data.

    Returns:
        None if the file is damaged, or if the package is not installed. None also for other kinds: palette,
        alpha, transparent colour, interlaced, fewer than 8 bits, 16-bit colours. Another decoder must then
        read the file.
    """
    decoders = fast_decoders()
    if not decoders or not content.startswith(PNG_SIGNATURE) or len(content) < _HEADER_END:
        return None
    width, height, bits, colour, _, _, interlaced, checksum = struct.unpack_from(">IIBBBBBI", content, 16)
    mode = _MODES.get((bits, colour))
    if mode is None or interlaced:
        return None
    # The decoder is told the size, and would allocate a damaged one before it looks at the checksum.
    if zlib.crc32(content[12 : _HEADER_END - 4]) != checksum or not (
        0 < width * height <= file_limits().pixels
    ):
        return None
    if content.find(b"tRNS", _HEADER_END, content.find(b"IDAT", _HEADER_END)) >= 0:
        return None
    try:
        with foreign_errors():
            pixels = decoders[bits](content, (height, width), mode)
    except ForeignError:
        return None
    return pixels[..., 0] if mode == "mono" else pixels
