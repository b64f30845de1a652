"""Students of several frozen encoders: SAK's adapter paths and PRISM's experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.adapters.taught.prism import PRISM
    from mtvision.models.adapters.taught.sak import SAK
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["PRISM", "SAK"]
