"""Model Breadcrumbs (Davari and Belilovsky, ECCV 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.core.values import Share
from mtvision.merge.coefficients import Coefficients, Scale
from mtvision.merge.states import MergeError, Parents, State
from mtvision.merge.vectors import TaskVectors, combined, merge_tensors


@MERGERS.register_module()
def breadcrumbs(
    base: State,
    parents: Parents,
    *,
    keep: Share = 0.2,
    outliers: Share = 0.1,
    scale: float | Mapping[str, float] = 0.4,
    axis: Literal["tensor", "last"] = "tensor",
    coefficients: Mapping[str, Scale] | None = None,
) -> dict[str, Any]:
    """Mask the largest and the small entries of every layer's task vector, then task arithmetic.

    Davari and Belilovsky, "Model Breadcrumbs", ECCV 2024, section 3: θ = θ_0 + λ Σ_t m_t ⊙ τ_t. In every
    tensor the largest `outliers` magnitudes are masked, and of the rest the largest `keep` stay. Both are
    shares of all its entries.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        keep: β. At least one entry of every tensor stays.
        outliers: γ.
        scale: λ, or {task: λ_t}.
        axis: magnitudes are compared within a tensor (paper), or within each row of its last axis with
            numbers rounded down (`last`, the authors' code). There, γ does nothing to 3x3 kernels, and β
            below a third masks them whole. Single numbers are not masked.
        coefficients: {glob pattern of tensor names: λ or {task: λ_t}}; the first that matches replaces
            `scale`.

    Raises:
        MergeError: `keep` and `outliers` are no shares, the states do not fit, or a pattern matches nothing.
        UnknownNameError: a coefficient of no parent.

    >>> import torch
    >>> child = {"w": torch.tensor([9.0, 1.0, 3.0, 2.0])}
    >>> breadcrumbs({"w": torch.zeros(4)}, {"a": child}, keep=0.5, outliers=0.25, scale=1.0)
    {'w': tensor([0., 0., 3., 2.])}
    """
    if not (0 <= keep <= 1 and 0 <= outliers <= 1):
        raise MergeError(f"breadcrumbs: keep and outliers are shares in 0..1, got {keep} and {outliers}.")
    vectors = TaskVectors(base, parents)
    lambdas = Coefficients(scale, coefficients, vectors)
    mask = _mask_of_tensor if axis == "tensor" else _mask_of_rows

    def rule(name: str, deltas: Tensor) -> Tensor:
        kept = torch.stack([mask(item.abs(), keep, outliers) for item in deltas])
        return combined(lambdas.of(name), torch.where(kept, deltas, 0))

    return merge_tensors(vectors, rule, lambdas.of, whole=True)


def _mask_of_tensor(magnitude: Tensor, keep: float, outliers: float) -> Tensor:
    count = magnitude.numel()
    first = min(round(outliers * count), count - 1)
    last = first + max(round(keep * count), 1)
    order = magnitude.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[order[first:last]] = True
    return mask.reshape(magnitude.shape)


def _mask_of_rows(magnitude: Tensor, keep: float, outliers: float) -> Tensor:
    if magnitude.ndim == 0:
        return torch.ones_like(magnitude, dtype=torch.bool)
    count = magnitude.shape[-1]
    first = int(outliers * count)
    order = magnitude.argsort(dim=-1, descending=True, stable=True)
    chosen = order[..., first : first + int(keep * count)]
    return torch.zeros_like(magnitude, dtype=torch.bool).scatter(-1, chosen, value=True)
