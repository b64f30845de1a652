"""How far a student's maps are from a teacher's, and how alike its distant pixels are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.pyramid import size_of

CosineOf = Literal["map", "pixel"]


def representation_distance(
    student: Tensor, teacher: Tensor, *, l1: float = 0.1, cosine: CosineOf = "map"
) -> Tensor:
    """(1 - l1)·(1 - cosine similarity) + l1·smooth L1 of two maps, a scalar ≥ 0; 0 for equal ones.

    The smaller map is enlarged bilinearly to the larger one. With l1=0.1 and `map` it is the loss of the
    released codes of SAK (Lu et al., ICLR 2025) and PRISM (Tang et al., ICML 2026).

    Args:
        student: (B, C, h, w).
        teacher: (B, C, H, W).
        l1: share of the smooth L1 distance, in 0..1.
        cosine: of the whole `map` of an image as one vector, or of each `pixel`; means are taken.

    >>> representation_distance(torch.ones(1, 2, 3, 3), 2 * torch.ones(1, 2, 3, 3))
    tensor(0.0500)
    """
    mine, goal = student.float(), teacher.float()
    if student.dtype == torch.float64:
        mine, goal = student, teacher.double()
    if size_of(goal)[0] > size_of(mine)[0]:
        mine = _enlarged(mine, size_of(goal))
    elif size_of(goal) != size_of(mine):
        goal = _enlarged(goal, size_of(mine))
    pair = (mine, goal) if cosine == "pixel" else (mine.flatten(1), goal.flatten(1))
    angle = 1 - F.cosine_similarity(*pair, dim=1).mean()
    return (1 - l1) * angle + l1 * F.smooth_l1_loss(mine, goal)


def correlation_at_distance(feature: Tensor, spread: float = 0.1) -> Tensor:
    """Mean |cosine similarity| of pixel pairs, each times 1 - exp(-d²/2σ²), d in pixels; 0..1.

    The decorrelation of PRISM's released code: distant pixels of early levels should differ.

    Args:
        feature: (B, C, h, w).
        spread: σ over the shorter side of the map.
    """
    height, width = size_of(feature)
    rows, columns = torch.meshgrid(
        *(torch.arange(side, device=feature.device, dtype=torch.float32) for side in (height, width)),
        indexing="ij",
    )
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    squared = (places[:, None] - places[None]).square().sum(dim=-1)
    far = 1 - torch.exp(-squared / (2 * (spread * min(height, width)) ** 2))
    pixels = F.normalize(feature.float().flatten(2).transpose(1, 2), dim=-1)
    return ((pixels @ pixels.transpose(1, 2)).abs() * far).mean()


def _enlarged(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(feature, size, mode="bilinear", align_corners=False)
