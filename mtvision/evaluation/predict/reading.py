"""Pictures as a person sees them: upright, without transparency, in 8-bit RGB."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.files.headers import PNG_SIGNATURE
from mtvision.core.files.limits import require_pixels
from mtvision.core.files.pictures import ORIENTATION, find_damage, opened
from mtvision.data.decode import DecodeError, read_bytes, read_image
from mtvision.data.pictures import decode_by_opencv

_log = logging.getLogger("mtvision")

_SIMPLE = ("L", "RGB")
_PNG_BITS = 24
"""Where a PNG says how many bits a number has."""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture of any format that Pillow or OpenCV reads, RGB (H, W, 3).

    All eight orientations of EXIF are applied. Gray becomes three equal channels, 16 bits become 8. Palettes
    and CMYK become RGB. Transparent pixels lie on white. Real values in 0..1 become 0..255. Of an animation
    the first picture is read.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no picture, damaged, or larger than the limits allow.
    """
    content = read_bytes(path)
    damage = find_damage(content) if content.startswith(PNG_SIGNATURE) else None
    if damage:
        raise DecodeError(f"{path}: the picture is damaged ({damage}). Copy it again.")
    try:
        with foreign_errors(DecodeError), opened(content) as image:
            require_pixels(path, image.width, image.height)
            orientation = orientation_of(image)
            if image.mode == "RGB" and content.startswith(PNG_SIGNATURE) and content[_PNG_BITS] == 16:
                pixels = _by_opencv(path, content)  # Pillow keeps the upper 8 bits, which cameras may not use
            elif (
                image.mode in _SIMPLE and image.format in ("PNG", "JPEG") and "transparency" not in image.info
            ):
                pixels = read_image(path)  # as data sets do
            else:
                pixels = picture_of(path, image)
            return upright(pixels, orientation)
    except ForeignError as error:
        if isinstance(error.error, UnidentifiedImageError):
            return _by_opencv(path, content)
        raise DecodeError(f"{path}: the picture is damaged ({error.first_line}). Copy it again.") from error


def orientation_of(image: Image.Image) -> int:
    """How a camera was held, for `upright`; 1 of a TIFF, which Pillow turns itself."""
    return image.getexif().get(ORIENTATION, 1) if image.format != "TIFF" else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo how a camera was held.

    Args:
        pixels: (H, W, C), as they lie in the file.
        orientation: 1 to 8, the value of EXIF; anything else counts as 1.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)  # 5; the others are turned from there
    if orientation in (2, 6, 3, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def picture_of(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    """A picture of Pillow as RGB (H, W, 3), on white where it is transparent; not turned.

    Args:
        path: what messages call it.
        image: of any mode.

    Raises:
        DecodeError: values that are no picture.
    """
    if image.mode.startswith("I;16"):  # Pillow would cut off values above 255
        return _three(_eight_bits(path, np.asarray(image)))
    if image.mode in ("I", "F"):
        return _three(_from_values(path, np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _eight_bits(path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    """8 bits of a picture of 16, of which cameras often use 10, 12 or 14."""
    used = int(values.max()).bit_length()
    bits = next(item for item in (8, 10, 12, 14, 16) if used <= item)
    if bits < 16:
        _log.warning("%s: 16 bits of which %d are used; shown as a picture of %d bits.", path, used, bits)
    return np.asarray(np.right_shift(values, bits - 8), dtype=np.uint8)


def _from_values(path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    """8 bits of 32-bit integers or of real values; what does not say its range is refused."""
    if not np.isfinite(values).all() or values.min() < 0:
        raise DecodeError(f"{path}: negative or infinite values; expected a picture. Convert it to PNG.")
    top = float(values.max())
    if values.dtype.kind == "f" and top > 1:
        raise DecodeError(f"{path}: real values up to {top:g}, expected 0..1. Convert it to an 8-bit PNG.")
    if values.dtype.kind != "f" and top > 65535:
        raise DecodeError(f"{path}: integers up to {top:g}, expected at most 65535. Convert it to PNG.")
    if values.dtype.kind == "f":
        return np.round(values * 255).astype(np.uint8)
    return _eight_bits(path, values.astype(np.uint16))


def _by_opencv(path: Path, content: bytes) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = decode_by_opencv(path, content, flags)
    if pixels is None:
        kind = "AVIF" if content[8:12] == b"avif" else "HEIC"
        how = f"{kind}, which is not read" if content[4:8] == b"ftyp" else "no picture that can be read"
        raise DecodeError(f"{path}: {how}. Export it as JPEG or PNG.")
    if pixels.dtype.kind == "f":
        pixels = _from_values(path, pixels)
    elif pixels.dtype.itemsize > 1:
        pixels = _eight_bits(path, pixels)
    colours = pixels[..., 2::-1] if pixels.ndim == 3 and pixels.shape[2] >= 3 else pixels
    return _three(np.ascontiguousarray(colours))


def _three(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    plane = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(np.repeat(plane[..., :1], 3, axis=2) if plane.shape[2] < 3 else plane)
