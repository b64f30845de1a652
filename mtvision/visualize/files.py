"""Pictures and plots as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from numpy.typing import NDArray

from mtvision.runtime.atomic import atomic_file, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_picture(path: Path, picture: NDArray[Any]) -> None:
    """Write an RGB picture (H, W, 3), uint8; the ending of `path` (`.png`, `.jpg`, …) decides the format.

    Raises:
        OSError: the file cannot be written, or its ending names no picture format.
    """
    try:
        done, encoded = cv2.imencode(path.suffix, picture[..., ::-1])
    except cv2.error as error:
        raise OSError(f"could not write {path}: OpenCV cannot encode '{path.suffix}'; use .png.") from error
    if not done:
        raise OSError(f"could not write {path}: the picture has shape {picture.shape}.")
    write_bytes(path, encoded.tobytes())


def write_figure(path: Path, figure: Figure) -> None:
    """Write a plot with its margins made tight; the ending of `path` decides the format.

    Raises:
        OSError: the file cannot be written.
    """
    figure.tight_layout()
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=110)
