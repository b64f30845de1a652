"""Consensus merging (Wang et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.core.values import Count, Share
from mtvision.merge.coefficients import Coefficients
from mtvision.merge.states import Parents, State
from mtvision.merge.tall_masks import merged_vector, task_masks
from mtvision.merge.vectors import TaskVectors, merge_tensors


@MERGERS.register_module()
def consensus(
    base: State,
    parents: Parents,
    *,
    scale: float = 0.3,
    agreeing: Count = 2,
    threshold: float | Mapping[str, float] = 0.4,
    of: Literal["sum", "ties"] = "sum",
    density: Share = 0.2,
    coefficients: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Keep the entries of the merged vector that several tasks use, and drop the others.

    Wang et al., "Localizing task information", ICML 2024, section 5, equation 6:

        θ = θ_0 + α · 1[ Σ_t m_t ≥ k ] ⊙ τ_MTL

    with the masks m_t of `tall_masks`.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        scale: α.
        agreeing: k; 0 keeps every entry, which is task arithmetic.
        threshold: λ of the masks, or {task: λ_t}.
        of: see `tall_masks`.
        density: of TIES.
        coefficients: {glob pattern of tensor names: α}; the first that matches replaces `scale`.

    Raises:
        MergeError: the states do not fit, or a pattern matches nothing.

    >>> import torch
    >>> parents = {"a": {"w": torch.tensor([2.0, 1.0])}, "b": {"w": torch.tensor([0.1, 1.0])}}
    >>> consensus({"w": torch.zeros(2)}, parents, scale=0.5)
    {'w': tensor([0., 1.])}
    """
    vectors = TaskVectors(base, parents)
    alphas = Coefficients(scale, coefficients, vectors)
    lambdas = Coefficients(threshold, None, vectors).of("")
    unified = merged_vector(vectors, of, density)

    def rule(name: str, deltas: Tensor) -> Tensor:
        total = unified(name, deltas)
        used = task_masks(deltas, total, lambdas).sum(dim=0) >= agreeing
        return alphas.one(name) * torch.where(used, total, 0)

    return merge_tensors(vectors, rule, alphas.of)
