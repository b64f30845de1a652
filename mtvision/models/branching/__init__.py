"""Branched encoders: groups of tasks that share the blocks of a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.branching.encoder import Branched, BranchedEncoder
    from mtvision.models.branching.supernet import BranchingSearch, Supernet
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["Branched", "BranchedEncoder", "BranchingSearch", "Supernet"]
