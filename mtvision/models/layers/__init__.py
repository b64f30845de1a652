"""Layers that several decoders and heads share."""

from __future__ import annotations

from mtvision.models.layers.conv import ConvNorm, NormName, enlarge, norm_layer, resize
from mtvision.models.layers.grid import common_grid, once_per_map
from mtvision.models.layers.regularised import Regularised, is_regularised

__all__ = [
    "ConvNorm",
    "NormName",
    "Regularised",
    "common_grid",
    "enlarge",
    "is_regularised",
    "norm_layer",
    "once_per_map",
    "resize",
]
