"""Layers that several decoders and heads share."""

from __future__ import annotations

from mtvision.models.layers.conv import ConvNorm, NormName, enlarge, norm_layer, resize
from mtvision.models.layers.grid import common_grid, once_per_map

__all__ = ["ConvNorm", "NormName", "common_grid", "enlarge", "norm_layer", "once_per_map", "resize"]
