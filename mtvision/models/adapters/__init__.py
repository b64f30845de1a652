"""Changes to existing networks: of the backbone before a decoder is built on it, or of everything after."""

from mtvision.models.adapters.adapter import Adapter

__all__ = ["Adapter"]
