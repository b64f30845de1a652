"""Heads; importing this package registers them."""

from __future__ import annotations

from mtvision.models.heads.conv import ConvHead

__all__ = ["ConvHead"]
