"""Networks: backbone, decoder, heads, and how to build them from a config."""

from __future__ import annotations

from mtvision.models.factory import build_network
from mtvision.models.network import Network

__all__ = ["Network", "build_network"]
