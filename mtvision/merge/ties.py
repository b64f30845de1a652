"""TIES-Merging (Yadav et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.core.values import Share
from mtvision.merge.coefficients import Coefficients
from mtvision.merge.states import MergeError, Parents, State
from mtvision.merge.vectors import TaskVectors, by_task, merge_tensors
from mtvision.ops.kth_largest import kth_largest


@MERGERS.register_module()
def ties(
    base: State,
    parents: Parents,
    *,
    scale: float = 1.0,
    density: Share = 0.2,
    combine: Literal["mean", "sum"] = "mean",
    zero_sum: Literal["zero", "majority"] = "zero",
    one_more: bool = False,
    coefficients: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Trim task vectors, elect a sign per entry, and merge the entries that agree with it.

    Yadav et al., "TIES-Merging", NeurIPS 2023, section 4 and algorithm 1. The largest magnitudes are those of
    the whole network. They are found in two more passes over the files.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        scale: λ of the merged vector.
        density: share of a task vector's entries that is kept.
        combine: mean of the entries that agree (paper), or their sum.
        zero_sum: where the trimmed entries add up to 0, the result is 0 (formula), or the sign is that of
            most elected signs (`majority`, the authors' code).
        one_more: keep one entry more, as the authors' code does.
        coefficients: {glob pattern of tensor names: λ}; the first that matches replaces `scale`.

    Raises:
        MergeError: the states do not fit, or a pattern matches nothing.

    >>> import torch
    >>> one, two = torch.tensor([4.0, 1.0, -3.0]), torch.tensor([2.0, 1.0, 5.0])
    >>> ties({"w": torch.zeros(3)}, {"a": {"w": one}, "b": {"w": two}}, density=0.67)
    {'w': tensor([3., 0., 5.])}
    """
    vectors = TaskVectors(base, parents)
    lambdas = Coefficients(scale, coefficients, vectors)
    rule = TiesRule(vectors, density=density, combine=combine, zero_sum=zero_sum, one_more=one_more)
    divisor = len(vectors.tasks) if combine == "mean" else 1
    return merge_tensors(
        vectors,
        lambda name, deltas: lambdas.one(name) * rule(deltas),
        lambda name: lambdas.of(name) / divisor,
    )


class TiesRule:
    """(T, ...) task vectors of a tensor to their merged one, (...).

    Args:
        vectors: of the whole network, for thresholds of magnitudes.
        density: see `ties`.
        combine: see `ties`.
        zero_sum: see `ties`.
        one_more: see `ties`.

    Raises:
        MergeError: `density` is not in 0..1.
    """

    def __init__(
        self,
        vectors: TaskVectors,
        *,
        density: float,
        combine: str = "mean",
        zero_sum: str = "zero",
        one_more: bool = False,
    ) -> None:
        if not 0 <= density <= 1:
            raise MergeError(f"density is a share of the entries, in 0..1; got {density}.")
        self._vectors, self._combine = vectors, combine
        self._names = list(vectors.weights)
        types = {vectors.base[name].dtype for name in self._names}
        self._rank = torch.float64 if torch.float64 in types else torch.float32
        total = sum(vectors.base[name].numel() for name in self._names)
        kept = min(int(density * total) + one_more, total)
        least = [self._threshold(task, kept) for task in vectors.tasks]
        self._least = torch.tensor(least, dtype=self._rank)
        self._zero_sign = self._majority() if zero_sum == "majority" else 0.0

    def __call__(self, deltas: Tensor) -> Tensor:
        """Trim, elect, merge."""
        trimmed = self._trim(deltas)
        sign = trimmed.sum(dim=0).sign()
        sign = torch.where(sign == 0, self._zero_sign, sign)
        agree = (trimmed.sign() == sign) & (trimmed != 0)
        total = torch.where(agree, trimmed, 0).sum(dim=0)
        return total / agree.sum(dim=0).clamp(min=1) if self._combine == "mean" else total

    def _trim(self, deltas: Tensor) -> Tensor:
        return torch.where(deltas.abs().to(self._rank) >= by_task(self._least, deltas), deltas, 0)

    def _threshold(self, task: str, kept: int) -> float:
        return kth_largest(lambda: self._vectors.magnitudes(task, self._names), kept, self._rank)

    def _majority(self) -> float:
        """The sign of most elected signs, 0 if they balance."""
        signs = (
            self._trim(deltas).sum(dim=0).sign().sum()
            for name in self._names
            for _, _, deltas in self._vectors.pieces(name)
        )
        return float(torch.stack(list(signs)).sum().sign())
