"""Networks: backbone, decoder, heads, and how to build them from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.factory import build_network
    from mtvision.models.network import Network
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["Network", "build_network"]
