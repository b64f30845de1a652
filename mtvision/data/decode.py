"""Read files into arrays with units. Every error names the file and what to do.

A truncated file is an error. Some versions of OpenCV decode half a picture without an error, and half a label
gives a wrong score.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtvision.data.png import GRAY, PALETTE, PNG_SIGNATURE, decode_png, find_damage

_JPEG = b"\xff\xd8"
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


class DecodeError(ValueError):
    """A file exists but does not hold what was expected; the message names it and the remedy."""


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is empty, or a PNG or JPEG that was cut off.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file. Check the data set's root folder, and that unpacking or copying finished."
        ) from None
    if not content:
        raise DecodeError(f"{path}: the file is empty. Copy or unpack it again.")
    # The last chunk of a PNG is IEND; in a JPEG the end marker follows the scan (thumbnails come first).
    cut_png = content.startswith(PNG_SIGNATURE) and content.rfind(b"IEND") < 0
    cut_jpeg = content.startswith(_JPEG) and content.find(_JPEG_END, _first_scan(content)) < 0
    if cut_png or cut_jpeg:
        raise DecodeError(
            f"{path}: the file is truncated ({len(content)} bytes, no end marker). Copy or unpack it again."
        )
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


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB picture (H, W, 3), 8 bits, in the file's own orientation (EXIF rotation is not applied).

    Labels are stored for the pixels as they lie in the file, hence no rotation. Gray files are repeated to
    three channels, 16-bit files reduced to 8, transparency is dropped.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no picture that OpenCV can read.
    """
    content = read_bytes(path)
    pixels = decode_png(content)
    if pixels is not None and pixels.dtype == np.uint8:
        return pixels if pixels.ndim == 3 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    require_intact(path, content)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if bgr is None:
        raise DecodeError(
            f"{path}: not a readable picture. Open it in a viewer; if that fails, copy or unpack it again, "
            "otherwise convert it to PNG or JPEG."
        )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_label_png(path: Path) -> NDArray[Any]:
    """Integer map (H, W), uint8 or uint16, of a one-channel PNG: gray values, or palette indices.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no PNG, or a colour picture.
    """
    content = read_bytes(path)
    _require_png(path, content, "a label map")
    bits, colour = content[24], content[25]
    if colour not in (PALETTE, GRAY):
        raise DecodeError(
            f"{path}: the label file is a colour picture; expected a one-channel PNG (gray values or palette "
            "indices = class ids). Convert colours to class ids first."
        )
    pixels = decode_png(content)
    if pixels is not None:
        return pixels
    require_intact(path, content)
    if colour == GRAY and bits >= 8:
        label = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if label is not None and label.ndim == 2:
            return np.asarray(label)
    try:
        with Image.open(io.BytesIO(content)) as image:  # OpenCV would turn palette indices into colours
            label = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DecodeError(f"{path}: not a readable PNG ({error}). Copy or unpack it again.") from None
    if colour == GRAY and bits < 8:  # Pillow stretches 2 and 4 bits to 0..255 and makes 1 bit a bool
        label = label.astype(np.uint8) // (255 // (2**bits - 1) if bits > 1 else 1)
    return label


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
        gray = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if gray is None:
        raise DecodeError(f"{path}: not a readable picture. Copy or unpack it again.")
    if gray.ndim == 3:
        if (gray[..., :1] != gray[..., :3]).any():
            raise DecodeError(f"{path}: expected a gray picture, got one with colours. Convert it to gray.")
        gray = gray[..., 0]
    return np.asarray(gray)


def read_npy(path: Path) -> NDArray[Any]:
    """Array of a NumPy file; pickled objects are refused.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no NumPy array, was cut off, or holds Python objects.
    """
    if not path.is_file() or path.stat().st_size == 0:
        read_bytes(path)  # raises, and says which
    try:
        return np.asarray(np.load(path, allow_pickle=False))  # from the file into the array, without a copy
    except (ValueError, EOFError, OSError) as error:
        raise DecodeError(
            f"{path}: not a plain NumPy array ({error}). Write it again with numpy.save of a numeric array."
        ) from None


def read_depth_png(path: Path, scale: float, *, bits: int = 16) -> NDArray[np.float32]:
    """Depth (H, W, 1) in metres from an integer PNG; 0 on disk means "no reading" and becomes NaN.

    Args:
        path: the file.
        scale: units on disk per metre (1000 for millimetres, 5000 for the TUM encoding).
        bits: bits per pixel the file must have.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no one-channel PNG, or has another number of bits, as after a conversion that
            lost the values.
    """
    if scale <= 0:
        raise ValueError(f"depth: scale must be positive (units on disk per metre), got {scale}.")
    content = read_bytes(path)
    _require_png(path, content, "a depth map")
    if content[24] != bits:
        raise DecodeError(
            f"{path}: the depth file has {content[24]} bits per channel, expected {bits}. Some program "
            "rewrote it and the depth is lost; take the original file again (or give bits= if it is right)."
        )
    stored = read_label_png(path).astype(np.float32)
    depth = stored / np.float32(scale)
    depth[stored == 0] = np.nan
    return np.asarray(depth[..., None], dtype=np.float32)


def read_normals_png(path: Path) -> NDArray[np.float32]:
    """Normals (H, W, 3) from an 8-bit RGB file, 2 v / 255 - 1 per channel, not re-normalised.

    8 bits cannot hold an exact zero, so no pixel is "no label" here; length errs by up to 0.7 degrees' worth
    of rounding.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no picture.
    """
    return np.asarray(cv2.LUT(read_image(path), _NORMAL_OF_BYTE), dtype=np.float32)


_NORMAL_OF_BYTE = (2.0 * np.arange(256, dtype=np.float32) / np.float32(255.0) - np.float32(1.0)).astype(
    np.float32
)


def require_intact(path: Path, content: bytes) -> None:
    """Refuse a PNG file with a damaged chunk.

    Raises:
        DecodeError: names the chunk.
    """
    damage = find_damage(content) if content.startswith(PNG_SIGNATURE) else None
    if damage:
        raise DecodeError(f"{path}: the file is damaged ({damage}). Copy or unpack it again.")


def _require_png(path: Path, content: bytes, what: str) -> None:
    if not content.startswith(PNG_SIGNATURE) or len(content) < 33:
        raise DecodeError(
            f"{path}: {what} must be a PNG (lossless), this file is not one. "
            "JPEG changes ids; export the labels again as PNG."
        )
