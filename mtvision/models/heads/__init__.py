"""Heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.heads.conv import ConvHead
    from mtvision.models.heads.deconv import DeconvHead
    from mtvision.models.heads.deeplab import DeepLabHead
    from mtvision.models.heads.levels import LevelsHead
    from mtvision.models.heads.survey import HighResolutionHead, ResidualHead
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["ConvHead", "DeconvHead", "DeepLabHead", "HighResolutionHead", "LevelsHead", "ResidualHead"]
