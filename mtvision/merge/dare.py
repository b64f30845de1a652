"""DARE: drop and rescale (Yu et al., ICML 2024)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.core.values import Count, Share
from mtvision.merge.coefficients import Coefficients, Scale
from mtvision.merge.states import MergeError, Parents, State
from mtvision.merge.vectors import TaskVectors, combined, merge_tensors


@MERGERS.register_module()
def dare(
    base: State,
    parents: Parents,
    *,
    drop: Share = 0.9,
    scale: float | Mapping[str, float] = 0.3,
    seed: Count = 0,
    coefficients: Mapping[str, Scale] | None = None,
) -> dict[str, Any]:
    """Drop entries of task vectors at random and rescale the rest by 1 / (1 - p), then task arithmetic.

    Yu et al., "Language models are super Mario", ICML 2024, section 3.2, equations 1 to 3. Every tensor of
    every parent has a random stream of its own; the global generator is not used.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        drop: p, below 1.
        scale: λ, or {task: λ_t}.
        seed: of the streams.
        coefficients: {glob pattern of tensor names: λ or {task: λ_t}}; the first that matches replaces
            `scale`.

    Raises:
        MergeError: `drop` is not in [0, 1), the states do not fit, or a pattern matches nothing.
        UnknownNameError: a coefficient of no parent.

    >>> import torch
    >>> merged = dare({"w": torch.zeros(9)}, {"a": {"w": torch.ones(9)}}, drop=0.5, scale=1.0, seed=1)
    >>> sorted(set(merged["w"].tolist()))
    [0.0, 2.0]
    """
    if not 0 <= drop < 1:
        raise MergeError(f"dare: drop must be at least 0 and below 1, got {drop}.")
    vectors = TaskVectors(base, parents)
    lambdas = Coefficients(scale, coefficients, vectors)

    def rule(name: str, deltas: Tensor) -> Tensor:
        kept = torch.stack([_kept(seed, task, name, deltas.shape[1:], drop) for task in vectors.tasks])
        return combined(lambdas.of(name), torch.where(kept, deltas / (1 - drop), 0))

    return merge_tensors(vectors, rule, lambdas.of, whole=True)


def _kept(seed: int, task: str, name: str, shape: torch.Size, drop: float) -> Tensor:
    """Which entries stay; the same whatever the order of parents and tensors."""
    digest = hashlib.sha256(f"{seed} {task} {name}".encode()).digest()
    stream = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(shape, generator=stream, dtype=torch.float64) >= drop
