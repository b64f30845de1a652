"""Heads; importing this package registers them."""

from __future__ import annotations

from mtvision.models.heads.conv import ConvHead
from mtvision.models.heads.deconv import DeconvHead
from mtvision.models.heads.deeplab import DeepLabHead
from mtvision.models.heads.survey import HighResolutionHead, ResidualHead

__all__ = ["ConvHead", "DeconvHead", "DeepLabHead", "HighResolutionHead", "ResidualHead"]
