"""Layers that several decoders and heads share."""

from __future__ import annotations

from mtvision.models.layers.conv import ConvNorm, NormName, norm_layer, resize
from mtvision.models.layers.grid import common_grid

__all__ = ["ConvNorm", "NormName", "common_grid", "norm_layer", "resize"]
