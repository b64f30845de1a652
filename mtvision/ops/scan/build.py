"""The C++ kernel of the scan, built on first use."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from mtvision.core.compiled import Library

LIBRARY = Library(
    "mtvision_scan",
    tuple(Path(__file__).parent / name for name in ("kernel.cpp", "tile.h", "vector.h")),
    user="selective scan",
    fallback="the slower 'torch' backend is used",
)


@functools.cache
def load_kernel() -> ctypes.CDLL | None:
    """The compiled kernel, or None (with one log line saying why) where it cannot be had."""
    return LIBRARY.load()
