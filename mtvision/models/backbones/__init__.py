"""Backbones; importing this package registers them."""

from __future__ import annotations

from mtvision.models.backbones.backbone import Backbone, Block
from mtvision.models.backbones.hrnet import HRNetBackbone
from mtvision.models.backbones.swin import SwinBackbone
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.backbones.vim import VimBackbone
from mtvision.models.backbones.vmamba import VMambaBackbone

__all__ = [
    "Backbone",
    "Block",
    "HRNetBackbone",
    "SwinBackbone",
    "TimmBackbone",
    "VMambaBackbone",
    "VimBackbone",
]
