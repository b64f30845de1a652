"""Changes to existing networks: of the backbone before a decoder is built on it, or of everything after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.adapters.adapter import Adapter
    from mtvision.models.adapters.class_token import DropClassToken
    from mtvision.models.adapters.experts import MixtureOfExperts
    from mtvision.models.adapters.low_rank import (
        DiTASK,
        Houlsby,
        HyperLowRank,
        LowRank,
        PolySkills,
        TADFormer,
    )
    from mtvision.models.adapters.mtan import MTAN
    from mtvision.models.adapters.necks import AdaTT, Alignment, ImplicitVectors, PublicPrivate
    from mtvision.models.adapters.pareto import ParetoManifold
    from mtvision.models.adapters.slimmable import Slimmable
    from mtvision.models.adapters.streams import NDDR, CrossStitch
    from mtvision.models.adapters.surgery import Surgery
    from mtvision.models.adapters.task_prompts import TaskPrompts
    from mtvision.models.adapters.taught import PRISM, SAK
    from mtvision.models.adapters.vtagml import VTAGML
    from mtvision.models.adapters.weight_deltas import TAPS, SparseDeltas, Subset
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "MTAN",
    "NDDR",
    "PRISM",
    "SAK",
    "TAPS",
    "VTAGML",
    "AdaTT",
    "Adapter",
    "Alignment",
    "CrossStitch",
    "DiTASK",
    "DropClassToken",
    "Houlsby",
    "HyperLowRank",
    "ImplicitVectors",
    "LowRank",
    "MixtureOfExperts",
    "ParetoManifold",
    "PolySkills",
    "PublicPrivate",
    "Slimmable",
    "SparseDeltas",
    "Subset",
    "Surgery",
    "TADFormer",
    "TaskPrompts",
]
