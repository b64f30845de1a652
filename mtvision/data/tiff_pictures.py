"""Photographs in TIFF files, which may also hold numbers, several pages or further channels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import DecodeError, reading
from mtvision.core.files.pictures import REMEDY
from mtvision.core.files.tiff import as_stored
from mtvision.data.pictures import decode_by_opencv, decode_colours

_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
"""{what a page calls its colours: their channels}: gray, RGB, palette, CMYK, YCbCr."""
_ALPHA = (1, 2)
_PLANAR = 2


def read_tiff_picture(path: Path, content: bytes) -> NDArray[np.uint8] | None:
    """RGB picture (H, W, 3) as it lies in a TIFF of one page; None if OpenCV cannot decode it.

    Transparency and one further channel beside red, green and blue are dropped.

    Args:
        path: for messages.
        content: of the file.

    Raises:
        DecodeError: it holds something else than a picture of 1 to 16 bits.
    """
    import tifffile

    with reading(path, "not a readable TIFF", REMEDY), tifffile.TiffFile(io.BytesIO(content)) as file:
        page, pages = file.series[0].keyframe, len(file.series[0].pages)
        further = page.samplesperpixel - _COLOURS.get(page.photometric, 0)
        problem = _problem(page, pages, further)
        if problem:
            raise DecodeError(
                f"{path}: found a TIFF of {problem}, expected one picture of 8 or 16 bits, gray or RGB. "
                "Convert it to PNG."
            )
        planar = page.planarconfig == _PLANAR and page.samplesperpixel > 1
        if planar or page.samplesperpixel == 2:  # OpenCV mixes channels of both
            stored = page.asarray()
            planes = np.moveaxis(stored, 0, 2) if planar else stored
            return _eight_bits(planes[..., : planes.shape[2] - further])
    if not further:
        return decode_colours(path, as_stored(content))
    mixed = decode_by_opencv(path, as_stored(content))
    return None if mixed is None else _eight_bits(mixed[..., 2::-1])


def name_of_colours(number: int) -> str:
    """What a TIFF calls its colours, e.g. `CIELAB`."""
    import tifffile

    return next((item.name for item in tifffile.PHOTOMETRIC if item.value == number), str(number))


def _problem(page: Any, pages: int, further: int) -> str:
    """What a file holds instead of one picture; empty if all is well."""
    if pages > 1:
        return f"{pages} pages"
    if page.photometric not in _COLOURS:
        return f"{name_of_colours(page.photometric)} colours"
    alpha = all(item in _ALPHA for item in page.extrasamples)
    if further not in (0, 1) or (further and page.samplesperpixel == 2 and not alpha):
        return f"{page.samplesperpixel} channels"
    if page.dtype is not None and (page.dtype.kind not in "bu" or page.dtype.itemsize > 2):
        return f"{page.dtype} numbers"
    return ""


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    eight = np.right_shift(values, 8) if values.dtype == np.uint16 else values
    return np.ascontiguousarray(np.repeat(eight, 3, axis=2) if eight.shape[2] == 1 else eight, np.uint8)
