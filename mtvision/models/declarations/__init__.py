"""How modules declare the way they slim and branch; see `docs/slimmable.md` and `docs/branching.md`."""

from __future__ import annotations

from mtvision.architecture.widths import FIXED, LAST_STAGE, SHARED, Part
from mtvision.models.declarations.declaration import (
    READS,
    WRITES,
    Channels,
    Declaration,
    Declares,
    Layer,
    Side,
    declaration_of,
    declare,
)

__all__ = [
    "FIXED",
    "LAST_STAGE",
    "READS",
    "SHARED",
    "WRITES",
    "Channels",
    "Declaration",
    "Declares",
    "Layer",
    "Part",
    "Side",
    "declaration_of",
    "declare",
]
