"""What stands between a backbone and its decoder: maps of each task from shared ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.adapters.necks.adatt import AdaTT
    from mtvision.models.adapters.necks.alignment import Alignment
    from mtvision.models.adapters.necks.implicit import ImplicitVectors
    from mtvision.models.adapters.necks.public_private import PublicPrivate
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["AdaTT", "Alignment", "ImplicitVectors", "PublicPrivate"]
