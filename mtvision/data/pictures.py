"""Pictures by OpenCV: silent, and with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import reading
from mtvision.core.files.pictures import REMEDY


def decode_by_opencv(path: Path, content: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[Any] | None:
    """What OpenCV makes of a file; None if it knows no such format or finds it damaged.

    Raises:
        DecodeError: OpenCV failed in another way.
    """
    with reading(path, "not a readable picture", REMEDY), silent_opencv():
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def decode_colours(path: Path, content: bytes) -> NDArray[np.uint8] | None:
    """RGB (H, W, 3) of 8 bits, not turned by EXIF; None, and what is raised, as `decode_by_opencv`."""
    bgr = decode_by_opencv(path, content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


_LOGGING: Any = getattr(cv2.utils, "logging", cv2)
"""What has `getLogLevel` and `setLogLevel`: `cv2` itself before they moved, e.g. in 4.9."""
_SILENT = 0


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Without what OpenCV prints of files that it cannot read; the error says it."""
    level = _LOGGING.getLogLevel()
    _LOGGING.setLogLevel(_SILENT)
    try:
        yield
    finally:
        _LOGGING.setLogLevel(level)
