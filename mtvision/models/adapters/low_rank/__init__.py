"""Frozen backbones with small trained updates of their linear layers: LoRA, MTLoRA, DiTASK and relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.adapters.low_rank.hyper import HyperLowRank
    from mtvision.models.adapters.low_rank.members import DiTASK, Houlsby, LowRank, PolySkills
    from mtvision.models.adapters.low_rank.merge import merge_into_weights
    from mtvision.models.adapters.low_rank.tadformer import TADFormer
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["DiTASK", "Houlsby", "HyperLowRank", "LowRank", "PolySkills", "TADFormer", "merge_into_weights"]
