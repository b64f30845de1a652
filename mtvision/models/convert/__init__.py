"""Official checkpoints in, our checkpoints out, and back."""

from mtvision.models.convert.convert import SOURCES, Report, convert, revert
from mtvision.models.convert.files import convert_file, load_into, read_tensors
from mtvision.models.convert.rules import ConversionError

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
