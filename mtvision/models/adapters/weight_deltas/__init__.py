"""Frozen backbones whose weights get a change per task: TAPS, SubTuning, sparse changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.adapters.weight_deltas.sparse import SparseDeltas
    from mtvision.models.adapters.weight_deltas.subset import Subset
    from mtvision.models.adapters.weight_deltas.taps import TAPS
    from mtvision.models.adapters.weight_deltas.video import VideoReuse, shifted_crops
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["TAPS", "SparseDeltas", "Subset", "VideoReuse", "shifted_crops"]
