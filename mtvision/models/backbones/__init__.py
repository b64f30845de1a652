"""Backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.backbones.backbone import Backbone, Block
    from mtvision.models.backbones.hrnet import HRNetBackbone
    from mtvision.models.backbones.swin import SwinBackbone
    from mtvision.models.backbones.timm_backbone import TimmBackbone
    from mtvision.models.backbones.vim import VimBackbone
    from mtvision.models.backbones.vmamba import VMambaBackbone
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "Backbone",
    "Block",
    "HRNetBackbone",
    "SwinBackbone",
    "TimmBackbone",
    "VMambaBackbone",
    "VimBackbone",
]
