"""Read files into arrays with units. Every error names the file and what to do.

A truncated file is an error. Some versions of OpenCV decode half a picture without an error, and half a label
gives a wrong score.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.pictures import read_bytes, require_intact
from mtvision.core.files.tiff import TIFF_STARTS
from mtvision.data.pictures import decode_colours
from mtvision.data.png import decode_png
from mtvision.data.tiff_pictures import read_tiff_picture

__all__ = ["DecodeError", "read_bytes", "read_image", "require_intact"]


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB picture (H, W, 3), 8 bits, in the file's own orientation (EXIF rotation is not applied).

    Labels are stored for the pixels as they lie in the file, hence no rotation. Gray files are repeated to
    three channels, 16-bit files reduced to 8, transparency is dropped. The tag of a TIFF that turns it is
    not applied either.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is no picture that OpenCV can read.
    """
    content = read_bytes(path)
    pixels = decode_png(content)
    if pixels is not None and pixels.dtype == np.uint8:
        return pixels if pixels.ndim == 3 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    require_intact(path, content)
    rgb = (
        read_tiff_picture(path, content) if content.startswith(TIFF_STARTS) else decode_colours(path, content)
    )
    if rgb is None:
        raise DecodeError(
            f"{path}: not a readable picture. Open it in a viewer; if that fails, copy or unpack it again, "
            "otherwise convert it to PNG or JPEG."
        )
    return rgb
