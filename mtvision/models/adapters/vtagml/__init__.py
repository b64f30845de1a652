"""Vision transformer adapters for generalizable multi-task learning: attention, norms and a side stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.adapters.vtagml.adapter import VTAGML
    from mtvision.models.adapters.vtagml.similarities import task_similarities
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["VTAGML", "task_similarities"]
