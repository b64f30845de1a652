"""Text, frames and placement: the few primitives panels are made of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mtvision.visualize.colours import NO_LABEL, Colour, Picture

PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 34, 40)
FAINT: Colour = (112, 116, 126)
LINE: Colour = (176, 180, 188)


@lru_cache(maxsize=32)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib, so pictures look alike on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """Width of one line in pixels."""
    return int(np.ceil(font(size, bold=bold).getlength(text)))


def shorten(text: str, width: int, size: int, *, bold: bool = False) -> str:
    """The text, or its beginning and "…" when it is wider than `width` pixels."""
    if text_width(text, size, bold=bold) <= width:
        return text
    while text and text_width(text + "…", size, bold=bold) > width:
        text = text[:-1]
    return text + "…"


def canvas(height: int, width: int) -> Picture:
    """White paper."""
    return np.full((max(height, 1), max(width, 1), 3), PAPER, dtype=np.uint8)


def write(
    picture: Picture,
    text: str,
    position: tuple[int, int],
    size: int,
    *,
    colour: Colour = INK,
    bold: bool = False,
    anchor: str = "la",
) -> None:
    """Draw one line of text into `picture` at (x, y); `anchor` as in Pillow ("la" = left, ascender)."""
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text(position, text, fill=colour, font=font(size, bold=bold), anchor=anchor)
    picture[:] = np.asarray(image)


def text_line(text: str, width: int, size: int, *, bold: bool = False, colour: Colour = INK) -> Picture:
    """A strip of `width` with one line of text, shortened to fit, left-aligned."""
    strip = canvas(round(size * 1.5), width)
    write(
        strip, shorten(text, width, size, bold=bold), (0, round(size * 0.15)), size, bold=bold, colour=colour
    )
    return strip


def sideways(text: str, height: int, size: int, *, colour: Colour = FAINT) -> Picture:
    """A narrow column with text that reads from bottom to top, centred."""
    strip = canvas(round(size * 1.7), height)
    write(
        strip,
        shorten(text, height, size),
        (height // 2, strip.shape[0] // 2),
        size,
        colour=colour,
        anchor="mm",
    )
    return np.ascontiguousarray(np.rot90(strip))


def place(picture: Picture, part: Picture, top: int, left: int) -> None:
    """Copy `part` into `picture`; what lies outside is cut off."""
    height = min(part.shape[0], picture.shape[0] - top)
    width = min(part.shape[1], picture.shape[1] - left)
    if height > 0 and width > 0:
        picture[top : top + height, left : left + width] = part[:height, :width]


def stack(parts: Sequence[Picture], gap: int = 0) -> Picture:
    """Parts below one another, left-aligned on white."""
    height = sum(part.shape[0] for part in parts) + gap * (len(parts) - 1)
    sheet = canvas(height, max((part.shape[1] for part in parts), default=1))
    top = 0
    for part in parts:
        place(sheet, part, top, 0)
        top += part.shape[0] + gap
    return sheet


def pad(picture: Picture, margin: int) -> Picture:
    """White margin on all sides."""
    return np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)


def framed(picture: Picture) -> Picture:
    """With a hairline along its edge; the size stays."""
    result = picture.copy()
    result[[0, -1]] = LINE
    result[:, [0, -1]] = LINE
    return result


def hatch(picture: Picture, mask: NDArray[np.bool_], *, period: int = 9) -> Picture:
    """Diagonal lines where `mask` (H, W) is true: "no label here" is then no colour that a map may hold."""
    rows, columns = np.indices(mask.shape)
    lines = mask & ((rows + columns) % period < 2)
    result = picture.copy()
    result[lines] = [max(item - 44, 0) for item in NO_LABEL]
    return result


def resized(array: NDArray[np.generic], size: tuple[int, int], *, smooth: bool) -> NDArray[np.generic]:
    """(H, W) or (H, W, C) at another (H, W): Lanczos or area averaging if `smooth`, else nearest."""
    height, width = size
    if array.shape[:2] == size:
        return array
    method = cv2.INTER_NEAREST_EXACT
    if smooth:
        method = cv2.INTER_AREA if height < array.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(array), (width, height), interpolation=method))
