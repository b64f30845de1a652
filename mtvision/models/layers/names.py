"""Names that modules may have."""

from __future__ import annotations

from torch import nn

TAKEN = frozenset(dir(nn.ModuleDict()))
"""Names that no entry of a `ModuleDict` may have; networks keep what is of one task or teacher in such."""
