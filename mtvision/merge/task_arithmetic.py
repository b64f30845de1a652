"""Task arithmetic (Ilharco et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtvision.core.registry import MERGERS
from mtvision.merge.coefficients import Coefficients, Scale
from mtvision.merge.states import Parents, State
from mtvision.merge.vectors import TaskVectors, combined, merge_tensors


@MERGERS.register_module()
def task_arithmetic(
    base: State,
    parents: Parents,
    *,
    scale: float | Mapping[str, float] = 0.3,
    coefficients: Mapping[str, Scale] | None = None,
) -> dict[str, Any]:
    """Sum of scaled task vectors: θ = θ_0 + Σ_t λ_t τ_t with τ_t = θ_t - θ_0.

    Ilharco et al., "Editing models with task arithmetic", ICLR 2023, section 2. A negative λ_t removes what
    parent t has learned.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        scale: λ, or {task: λ_t}.
        coefficients: {glob pattern of tensor names: λ or {task: λ_t}}; the first that matches replaces
            `scale`.

    Raises:
        MergeError: the states do not fit, or a pattern matches nothing.
        UnknownNameError: a coefficient of no parent.

    >>> import torch
    >>> task_arithmetic({"w": torch.ones(1)}, {"a": {"w": torch.tensor([3.0])}}, scale=0.5)
    {'w': tensor([2.])}
    """
    vectors = TaskVectors(base, parents)
    lambdas = Coefficients(scale, coefficients, vectors)
    return merge_tensors(
        vectors, lambda name, deltas: combined(lambdas.of(name), deltas), lambda name: lambdas.of(name)
    )
