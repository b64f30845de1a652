"""Colour maps, panels and picture files."""

from mtvision.visualize.colours import colourise, generate_palette, palette, value_range
from mtvision.visualize.files import write_picture
from mtvision.visualize.legends import legend
from mtvision.visualize.panels import denormalise, panel, sheet

__all__ = [
    "colourise",
    "denormalise",
    "generate_palette",
    "legend",
    "palette",
    "panel",
    "sheet",
    "value_range",
    "write_picture",
]
