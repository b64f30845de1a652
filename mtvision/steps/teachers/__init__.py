"""Distillation from frozen encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.steps.teachers.step import DistillStep
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["DistillStep"]
