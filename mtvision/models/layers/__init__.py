"""Layers that several decoders and heads share."""

from __future__ import annotations

from mtvision.models.layers.conv import ConvNorm, NormName, norm_layer, resize

__all__ = ["ConvNorm", "NormName", "norm_layer", "resize"]
