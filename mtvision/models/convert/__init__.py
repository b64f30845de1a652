"""Official checkpoints in, our checkpoints out, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.convert.conversion import SOURCES, Report, convert, revert
    from mtvision.models.convert.files import convert_file, load_into, read_tensors
    from mtvision.models.convert.rules import ConversionError
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "SOURCES",
    "ConversionError",
    "Report",
    "convert",
    "convert_file",
    "load_into",
    "read_tensors",
    "revert",
]
