"""Decoders; importing this package registers them."""

from __future__ import annotations

from mtvision.models.decoders.decoder import Decoder
from mtvision.models.decoders.parallel import ParallelDecoder

__all__ = ["Decoder", "ParallelDecoder"]
