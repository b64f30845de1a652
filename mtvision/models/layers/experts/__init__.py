"""Mixtures of experts: routers, experts, ways to combine them, and losses."""

from __future__ import annotations

from mtvision.models.layers.experts.mlp import (
    Experts,
    MixtureMLP,
    orthogonal_sum,
    orthonormal_sum,
    weighted_sum,
)
from mtvision.models.layers.experts.router import (
    ConditionedRouter,
    Router,
    Routing,
    SharedRouter,
    TaskRouter,
    exclusive_mask,
)

__all__ = [
    "ConditionedRouter",
    "Experts",
    "MixtureMLP",
    "Router",
    "Routing",
    "SharedRouter",
    "TaskRouter",
    "exclusive_mask",
    "orthogonal_sum",
    "orthonormal_sum",
    "weighted_sum",
]
