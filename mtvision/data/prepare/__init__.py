"""Prepare the loaders' folders from the released archives; see `tools/prepare_dataset.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.core.registry import PREPARATIONS
    from mtvision.data.prepare.bsds_sod import prepare_bsds_sod
    from mtvision.data.prepare.camvid import prepare_camvid
    from mtvision.data.prepare.cityscapes import prepare_cityscapes
    from mtvision.data.prepare.mosd import prepare_mosd
    from mtvision.data.prepare.nyudv2 import prepare_nyudv2
    from mtvision.data.prepare.pascal_context import prepare_pascal_context
    from mtvision.data.prepare.work import Outcome
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "PREPARATIONS",
    "Outcome",
    "prepare_bsds_sod",
    "prepare_camvid",
    "prepare_cityscapes",
    "prepare_mosd",
    "prepare_nyudv2",
    "prepare_pascal_context",
]
