"""A batch in parts, one after another in one step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtvision.core.sample import Batch


def shares_of(parts: Sequence[Batch]) -> list[float]:
    """What part of this process's batch each part is."""
    return [len(part) / sum(len(item) for item in parts) for part in parts]


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into at most `parts` consecutive pieces of nearly equal size; empty ones are dropped."""
    if parts == 1:
        return [batch]
    cuts = torch.arange(len(batch)).tensor_split(parts)
    return [batch.part(cut.tolist()) for cut in cuts if len(cut)]
