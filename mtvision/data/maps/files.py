"""A map as its file stores it: PNG, JPEG, WebP, BMP, TIFF, PFM, EXR, NPY and NPZ."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.arrays import load_npy, load_npz
from mtvision.core.files.foreign import DecodeError, ForeignError, cause, foreign_errors, reading
from mtvision.core.files.headers import PNG_SIGNATURE
from mtvision.core.files.pictures import REMEDY, opened, read_bytes, require_intact
from mtvision.core.files.tiff import as_stored
from mtvision.data.pictures import decode_by_opencv
from mtvision.data.png import GRAY, PALETTE, decode_png
from mtvision.data.tiff_pictures import name_of_colours

Array = NDArray[Any]
ARRAYS = (".npy", ".npz")
SUFFIXES = (".png", *ARRAYS, ".tif", ".tiff", ".bmp", ".pfm", ".exr")
"""Endings of files that keep every number."""
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
"""Endings that are looked for where a folder has none of the others."""
TINGE = 32
"""How far the channels of a gray picture are apart after lossy compression."""
_MAGIC = {
    PNG_SIGNATURE: "PNG",
    b"\xff\xd8": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"BM": "BMP",
    b"PF": "PFM",
    b"Pf": "PFM",
    b"v/1\x01": "EXR",
}
_LOSSY_IN_TIFF = (6, 7, 33003, 33005, 33007, 34712, 34892, 50001, 50002)
"""Compressions of JPEG, JPEG 2000, WebP and JPEG XL; the others keep every number."""
_WHITE_IS_0, _PALETTE_IN_TIFF = 0, 3
_COLOURS_IN_TIFF = (0, 1, 2, 3, 4, 6, 32844)
"""What pictures of gray values, red, green and blue, or indices call their colours."""
ARRAY = "array"
"""Format of numbers that lie in memory."""


@dataclass(frozen=True, order=True)
class Storage:
    """How a file stores numbers.

    Args:
        format: `PNG`, `JPEG`, `WebP`, `TIFF`, `BMP`, `PFM`, `EXR`, `NPY`, `NPZ` or `array`.
        kind: of the numbers: `b` Boolean, `i` with sign, `u` without, `f` real.
        bits: of one number.
        lossy: the format changes numbers, as JPEG does.
    """

    format: str
    kind: str
    bits: int
    lossy: bool = False

    def __str__(self) -> str:
        if self.is_array or self.kind == "f":
            word = {"b": "bool", "i": f"int{self.bits}", "u": f"uint{self.bits}", "f": f"float{self.bits}"}
            return f"{word[self.kind]} {self.format}"
        return f"{self.bits}-bit {self.format}"

    @property
    def is_array(self) -> bool:
        """Numbers of NumPy, which have no range of their own."""
        return self.format in ("NPY", "NPZ", ARRAY)

    @property
    def top(self) -> int:
        """Largest number that it can hold; 1 of real and Boolean ones."""
        return 1 if self.kind in "bf" else int(2 ** (self.bits - (self.kind == "i")) - 1)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds.

    Args:
        values: numbers (H, W, C); colours in the order red, green, blue, alpha.
        storage: how they are stored.
    """

    values: Array
    storage: Storage

    def fitting(self, path: Path, task: str, channels: int) -> tuple[Array, NDArray[np.bool_] | None]:
        """The channels that a task has, and (H, W) where a picture is transparent, None = nowhere.

        Raises:
            DecodeError: another number of channels; says what was found and what to do.
        """
        values, clear = self.values, None
        found, picture = values.shape[2], not self.storage.is_array
        if found == channels:
            return values, None
        if picture and found == 4 and channels in (1, 3):
            values, clear, found = values[..., :-1], values[..., -1] == 0, found - 1
        if picture and found == 3 and channels == 1 and self.is_gray(values):
            values, found = values[..., 1:2] if self.storage.lossy else values[..., :1], 1
        if found == channels:
            return values, clear
        remedy = f"Give the task label_channels={found}, or convert the file."
        if picture and found == 3 and channels == 1:
            remedy = (
                "It has colours. Convert it to gray (colours of classes to class ids), or give the task "
                f"label_channels={found}."
            )
        elif values.shape[0] == channels:
            remedy = (
                f"Its first axis has {channels}: store (H, W, channels), as array.transpose(1, 2, 0) gives."
            )
        raise DecodeError(
            f"{path}: found {found} channel{'s' * (found > 1)}, expected {channels}, the label_channels of "
            f"task '{task}'. {remedy}"
        )

    def is_gray(self, values: Array) -> bool:
        """Whether all channels of values (H, W, C) are equal, up to what lossy compression changes."""
        if self.storage.lossy:  # colours of a gray picture come back a little apart
            return bool((values.max(axis=2).astype(np.int64) - values.min(axis=2) <= TINGE).all())
        return bool((values[..., :1] == values).all())


def read_map(path: Path, palette: Literal["ids", "colours"] = "colours") -> Stored:
    """The numbers of a file as they are stored.

    The content decides what kind of file it is, not the ending. Gray PNG of 1, 2 and 4 bits keep their
    numbers.

    Args:
        path: the file.
        palette: whether a file with a palette gives its indices or its colours.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is unreadable, no map, or holds something else than real numbers.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        values = read_npy(path) if suffix == ".npy" else read_npz(path)
        if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
            raise DecodeError(
                f"{path}: found {values.dtype} of shape {values.shape}, expected numbers of shape (H, W) or "
                "(H, W, channels)."
            )
        bits = 1 if values.dtype.kind == "b" else 8 * values.dtype.itemsize
        storage = Storage(suffix[1:].upper(), values.dtype.kind, bits)
        return Stored(values if values.ndim == 3 else values[..., None], storage)
    content = read_bytes(path)
    name = _format_of(content)
    if name == "PNG":
        values, bits = _png(path, content, palette)
        storage = Storage(name, "u", bits)
    elif name == "TIFF":
        values, bits, lossy = _tiff(path, content)
        storage = Storage(name, values.dtype.kind, bits or 8 * values.dtype.itemsize, lossy)
    elif name == "BMP":
        values, bits = _bmp(path, content, palette)
        storage = Storage(name, "u", bits)
    else:
        values = _picture(path, content, name)
        lossy = name == "JPEG" or (name == "WebP" and b"VP8L" not in content[12:64])
        storage = Storage(name or "picture", values.dtype.kind, 8 * values.dtype.itemsize, lossy)
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
        raise DecodeError(f"{path}: found {values.dtype} of shape {values.shape}, expected a map (H, W).")
    return Stored(values if values.ndim == 3 else values[..., None], storage)


def read_npy(path: Path) -> Array:
    """Array of a NumPy file; pickled objects are refused.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no NumPy array, was cut off, or holds Python objects.
    """
    if not path.is_file() or path.stat().st_size == 0:
        read_bytes(path)  # raises, and says which
    return load_npy(path)


def read_npz(path: Path) -> Array:
    """The only array of an archive of NumPy.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no archive, or holds another number of arrays.
    """
    arrays = load_npz(path)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    names = list(arrays)
    raise DecodeError(
        f"{path}: found the arrays {', '.join(names) or 'none'}, expected one. Keep one a file."
    )


def png_numbers(path: Path, content: bytes) -> Array:
    """Gray values, or palette indices, of a one-channel PNG as they are stored; uint8 or uint16 (H, W).

    Raises:
        DecodeError: it is damaged.
    """
    pixels = decode_png(content)
    if pixels is not None:
        return pixels
    require_intact(path, content)
    bits, colour = content[24], content[25]
    if colour == GRAY and bits >= 8:
        stored = decode_by_opencv(path, content)
        if stored is not None and stored.ndim == 2:
            return np.asarray(stored)
    # OpenCV would turn palette indices into colours.
    with reading(path, "not a readable PNG", REMEDY), opened(content) as image:
        stored = np.asarray(image)
    if colour == GRAY and bits < 8:  # Pillow stretches 2 and 4 bits to 0..255 and makes 1 bit a bool
        stored = stored.astype(np.uint8) // (255 // (2**bits - 1) if bits > 1 else 1)
    return stored


def _format_of(content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    return next((name for magic, name in _MAGIC.items() if content.startswith(magic)), "")


def _png(path: Path, content: bytes, palette: str) -> tuple[Array, int]:
    bits, colour = (content[24], content[25]) if len(content) > 33 else (0, -1)
    if colour == GRAY or (colour == PALETTE and palette == "ids"):
        return png_numbers(path, content), bits
    return _picture(path, content, "PNG"), 8 if colour == PALETTE else bits


def _bmp(path: Path, content: bytes, palette: str) -> tuple[Array, int]:
    """Up to 8 bits a BMP holds indices of a palette, which OpenCV turns into colours."""
    with reading(path, "not a readable BMP", REMEDY), opened(content) as image:
        bits = {"1": 1, "L": 8, "P": 8}.get(image.mode)
        if bits is not None and (palette == "ids" or image.mode == "L"):
            return np.asarray(image).astype(np.uint8), bits
    return _picture(path, content, "BMP"), 8


def _picture(path: Path, content: bytes, name: str) -> Array:
    pixels = decode_png(content)
    if pixels is None:
        require_intact(path, content)
        pixels = _decoded(path, content)
    if pixels is not None:
        return pixels
    if name == "EXR":
        raise DecodeError(
            f"{path}: the installed OpenCV {cv2.__version__} reads no EXR. Convert the files to TIFF or NPY "
            "of float32."
        )
    raise DecodeError(f"{path}: not a readable picture. Copy or unpack it again.")


def _tiff(path: Path, content: bytes) -> tuple[Array, int, bool]:
    """Pages or planes become channels; with the bits of a number, and whether it is compressed as JPEG."""
    import tifffile

    with reading(path, "not a readable TIFF", REMEDY), tifffile.TiffFile(io.BytesIO(content)) as file:
        series = file.series[0]
        axes, page = series.axes, series.keyframe
        bits, lossy = int(page.bitspersample), int(page.compression) in _LOSSY_IN_TIFF
        colours = int(page.photometric)
        if colours not in _COLOURS_IN_TIFF:
            raise DecodeError(
                f"{path}: a TIFF of {name_of_colours(colours)} colours. Convert it to gray or RGB."
            )
        try:
            with foreign_errors():
                stored = series.asarray()
        except ForeignError as foreign:
            decoded = _compressed_tiff(path, as_stored(content), bits, colours)
            if decoded is None:
                raise DecodeError(
                    f"{path}: not a readable TIFF ({cause(foreign.error)}). Write it again, without "
                    "compression."
                ) from foreign.error
            return decoded, bits if decoded.dtype.kind in "bu" else 0, lossy
    inverted = colours == _WHITE_IS_0
    if "Y" in axes and "X" in axes:
        stored = np.moveaxis(stored, [axes.index("Y"), axes.index("X")], [0, 1])
    if inverted and stored.dtype.kind in "bu":
        stored = ~stored if stored.dtype.kind == "b" else np.asarray(2**bits - 1, stored.dtype) - stored
    return np.asarray(stored), bits if stored.dtype.kind in "bu" else 0, lossy


def _compressed_tiff(path: Path, content: bytes, bits: int, colours: int) -> Array | None:
    """By Pillow or OpenCV, which have the compressions that tifffile needs a package for, e.g. LZW."""
    # OpenCV turns indices into colours and stretches fewer than 8 bits.
    decoded = _decoded(path, content) if bits >= 8 and colours != _PALETTE_IN_TIFF else None
    if decoded is not None:
        return decoded
    with reading(path, "not a readable TIFF", REMEDY), opened(content) as image:
        exact = ("1", "P") if bits < 8 or colours == _PALETTE_IN_TIFF else ("L", "I;16", "I;16B", "I", "F")
        return np.asarray(image) if image.mode in exact else None


def _decoded(path: Path, content: bytes) -> Array | None:
    """By OpenCV, with colours in the order red, green, blue, alpha."""
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # read when OpenCV meets the first EXR file
    pixels = decode_by_opencv(path, content)
    if pixels is None or pixels.ndim == 2:
        return pixels
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2])
    return np.asarray(pixels if order is None else pixels[..., order])
