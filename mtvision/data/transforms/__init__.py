"""Transforms on raw samples: one code path for all tasks, by the geometry that each task declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.core.registry import PRESETS, TRANSFORMS
    from mtvision.data.transforms.building import build_pipeline, build_transform
    from mtvision.data.transforms.transform import Pipeline, Transform, TransformConfig
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "PRESETS",
    "TRANSFORMS",
    "Pipeline",
    "Transform",
    "TransformConfig",
    "build_pipeline",
    "build_transform",
]
