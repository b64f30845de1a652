"""EMR-Merging: elect, mask and rescale (Huang et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.merge.states import Parents, State
from mtvision.merge.tall_masks import index_of, one_hot
from mtvision.merge.vectors import TaskVectors, merge_tensors


@MERGERS.register_module()
def emr(
    base: State,
    parents: Parents,
    *,
    task: str,
    zero_sum: Literal["zero", "negative"] = "zero",
    rescale: Literal["entries", "tensors"] = "entries",
) -> dict[str, Any]:
    """The network of one task: the unified vector, masked by that task's signs and rescaled.

    Huang et al., "EMR-Merging", NeurIPS 2024, section 3.2 and algorithm 1:

        τ_uni = sgn(Σ_t τ_t) ⊙ max of |τ_t| over tasks with that sign
        M_t = 1[ τ_t ⊙ τ_uni > 0 ],   λ_t = Σ|τ_t| / Σ|M_t ⊙ τ_uni|,   θ = θ_0 + λ_t M_t ⊙ τ_uni

    All tasks together need one vector, one bit per weight and task, and one number per task. λ_t takes one
    more pass over the files.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        task: whose network is made.
        zero_sum: where task vectors add up to 0, the unified vector is 0 (formula), or the sign is
            `negative` (common code).
        rescale: sums of λ_t run over entries (formula), or over mean magnitudes of `tensors` (common code).
            There, a single number counts as much as a kernel.

    Raises:
        MergeError: the states do not fit.
        UnknownNameError: no parent is called `task`.

    >>> import torch
    >>> parents = {"a": {"w": torch.tensor([2.0, 1.0])}, "b": {"w": torch.tensor([4.0, -3.0])}}
    >>> emr({"w": torch.zeros(2)}, parents, task="a")
    {'w': tensor([3., 0.])}
    """
    vectors = TaskVectors(base, parents)
    index, zero_sign = index_of(task, vectors), 0.0 if zero_sum == "zero" else -1.0
    own = masked = 0.0
    for name in vectors.weights:
        share = max(base[name].numel(), 1) if rescale == "tensors" else 1
        for _, _, deltas in vectors.pieces(name):
            own += float(deltas[index].abs().sum()) / share
            masked += float(_masked(deltas, index, zero_sign).abs().sum()) / share
    factor = own / masked if masked else 1.0
    return merge_tensors(
        vectors,
        lambda _, deltas: factor * _masked(deltas, index, zero_sign),
        lambda _: one_hot(index, vectors),
    )


def unified_vector(deltas: Tensor, zero_sign: float = 0.0) -> Tensor:
    """(T, ...) task vectors to (...): the elected sign with the largest magnitude of that sign."""
    sign = deltas.sum(dim=0).sign()
    sign = torch.where(sign == 0, zero_sign, sign)
    return sign * (deltas * sign).clamp(min=0).amax(dim=0)


def _masked(deltas: Tensor, index: int, zero_sign: float) -> Tensor:
    """M_t ⊙ τ_uni of one task."""
    unified = unified_vector(deltas, zero_sign)
    return torch.where(deltas[index] * unified > 0, unified, 0)
