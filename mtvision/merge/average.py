"""Average of the parents' weights (Wortsman et al., model soups, ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtvision.core.registry import MERGERS
from mtvision.merge.coefficients import Coefficients, Scale
from mtvision.merge.states import MergeError, Parents, State
from mtvision.merge.vectors import TaskVectors, combined, merge_tensors


@MERGERS.register_module()
def average(
    base: State,
    parents: Parents,
    *,
    weights: Mapping[str, float] | None = None,
    coefficients: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Mean of the parents: θ = Σ_t w_t θ_t / Σ_t w_t.

    Wortsman et al., "Model soups", ICML 2022, section 2 (uniform soup).

    Args:
        base: θ_0. It only counts where a coefficient is not 1.
        parents: {task: θ_t}.
        weights: {task: w_t}, all equal by default.
        coefficients: {glob pattern of tensor names: c}, θ = (1 - c) θ_0 + c · mean; 1 elsewhere.

    Raises:
        MergeError: the states do not fit, a pattern matches nothing, or the weights have no positive sum.
        UnknownNameError: a weight of no parent.

    >>> import torch
    >>> average({"w": torch.zeros(1)}, {"a": {"w": torch.ones(1)}, "b": {"w": torch.tensor([3.0])}})
    {'w': tensor([2.])}
    """
    vectors = TaskVectors(base, parents)
    scale = Coefficients(1.0, coefficients, vectors)
    given: Scale = 1.0 if weights is None else weights
    shares = Coefficients(given, None, vectors).of("")
    if not float(shares.sum()) > 0 or float(shares.min()) < 0:
        raise MergeError(f"average: weights must be at least 0 with a positive sum, got {weights}.")
    shares = shares / shares.sum()
    return merge_tensors(
        vectors,
        lambda name, deltas: scale.one(name) * combined(shares, deltas),
        lambda name: scale.one(name) * shares,
    )
