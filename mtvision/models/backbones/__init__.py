"""Backbones; importing this package registers them."""

from __future__ import annotations

from mtvision.models.backbones.backbone import Backbone, Block
from mtvision.models.backbones.timm_backbone import TimmBackbone

__all__ = ["Backbone", "Block", "TimmBackbone"]
