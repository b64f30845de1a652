"""Files of real-valued labels with any number of channels: PNG, TIFF, NPY and NPZ."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.task import Task
from mtvision.data.decode import DecodeError, read_bytes, read_npy, require_intact
from mtvision.data.png import decode_png

Array = NDArray[Any]
ARRAYS = (".npy", ".npz")
TIFFS = (".tif", ".tiff")
SUFFIXES = (".png", *ARRAYS, *TIFFS)


def read_values(
    path: Path,
    task: Task,
    *,
    scale: float | None = None,
    ignore: tuple[float, ...] = (),
    unit: str | None = None,
) -> NDArray[np.float32]:
    """A label (H, W, task.label_channels); NaN where there is none.

    Args:
        path: the file.
        task: how many channels it must have. Colours are in the order red, green, blue, alpha.
        scale: stored units per unit of the task. None: pictures of 8 and 16 bits become 0..1, all other
            values stay.
        ignore: stored values that mean "no label", where all channels of a pixel hold one.
        unit: for messages. If given, pictures of integers need a scale instead of becoming 0..1.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it cannot be read, has another number of channels, or needs a scale.
    """
    stored, transparent = _fitting(path, read_planes(path), task)
    picture = path.suffix.lower() not in ARRAYS
    if scale is None and picture and unit is not None and stored.dtype.kind != "f":
        raise DecodeError(f"{path}: found integers, which need scale=, the units on disk per {unit}.")
    shades = picture and stored.dtype in (np.uint8, np.uint16)
    divisor = scale if scale is not None else np.iinfo(stored.dtype).max if shades else 1.0
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = stored.astype(np.float32) / np.float32(divisor)
    numbers = np.asarray(ignore, stored.dtype if stored.dtype.kind == "f" else None)  # as float32 has them
    missing = transparent | (np.isin(stored, numbers).all(axis=2) if numbers.size else False)
    values[missing] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values


def read_planes(path: Path) -> Array:
    """The numbers of a file as they are stored, (H, W, C); colours in the order red, green, blue, alpha.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is unreadable, no map, or holds something else than real numbers.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        stored = read_npy(path)
    elif suffix == ".npz":
        stored = _read_npz(path)
    else:
        stored = _read_tiff(path) if suffix in TIFFS else _read_picture(path)
    if stored.ndim not in (2, 3) or stored.dtype.kind not in "biuf":
        raise DecodeError(
            f"{path}: found {stored.dtype} of shape {stored.shape}, expected numbers of shape (H, W) or "
            "(H, W, channels)."
        )
    return stored if stored.ndim == 3 else stored[..., None]


def _fitting(path: Path, stored: Array, task: Task) -> tuple[Array, NDArray[np.bool_]]:
    """The channels that the task has, and (H, W) where a picture is transparent: there is no label.

    Raises:
        DecodeError: another number of channels; says what was found and what to do.
    """
    found, expected = stored.shape[2], task.label_channels
    opaque = np.zeros(stored.shape[:2], dtype=bool)
    picture = path.suffix.lower() not in ARRAYS
    if picture and found == 4 and expected in (1, 3):
        stored, opaque, found = stored[..., :3], stored[..., 3] == 0, 3
    if picture and found == 3 and expected == 1 and (stored[..., :1] == stored).all():
        stored, found = stored[..., :1], 1
    if found == expected:
        return stored, opaque
    remedy = f"Give the task label_channels={found}, or convert the file."
    if picture and found == 3 and expected == 1:
        remedy = f"It has colours. Convert it to gray, or give the task label_channels={found}."
    elif stored.shape[0] == expected:
        remedy = f"Its first axis has {expected}: store (H, W, channels), as array.transpose(1, 2, 0) gives."
    raise DecodeError(
        f"{path}: found {found} channel{'s' * (found > 1)}, expected {expected}, the label_channels of task "
        f"'{task.name}'. {remedy}"
    )


def _read_npz(path: Path) -> Array:
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
            names = list(archive)
            if len(names) == 1:
                return np.asarray(archive[names[0]])
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise DecodeError(
            f"{path}: not an archive of NumPy arrays ({error}). Write it with numpy.savez."
        ) from None
    raise DecodeError(
        f"{path}: found the arrays {', '.join(names) or 'none'}, expected one. Keep one a file."
    )


def _read_tiff(path: Path) -> Array:
    """Pages or planes of a TIFF become channels."""
    import tifffile

    content = read_bytes(path)
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            axes, stored = series.axes, series.asarray()
    except (tifffile.TiffFileError, IndexError, ValueError, KeyError) as error:
        decoded = _decoded(content)  # OpenCV has the compressions that tifffile needs a package for
        if decoded is None:
            raise DecodeError(
                f"{path}: not a readable TIFF ({error}). Write it again, without compression."
            ) from None
        return decoded
    if "Y" in axes and "X" in axes:
        stored = np.moveaxis(stored, [axes.index("Y"), axes.index("X")], [0, 1])
    return np.asarray(stored)


def _read_picture(path: Path) -> Array:
    content = read_bytes(path)
    pixels = decode_png(content)
    if pixels is None:
        require_intact(path, content)
        pixels = _decoded(content)
    if pixels is None:
        raise DecodeError(f"{path}: not a readable picture. Copy or unpack it again.")
    return pixels


def _decoded(content: bytes) -> Array | None:
    """By OpenCV, with colours in the order red, green, blue, alpha."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim == 2:
        return pixels
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2])
    return np.asarray(pixels if order is None else pixels[..., order])
