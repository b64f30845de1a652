"""Weights by how much of a task's gradient lies in the directions that tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtvision.balance.balancer import Own
from mtvision.balance.gramian.gramian import GramianBalancer
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Positive


@BALANCERS.register_module()
class PrincipalWeights(GramianBalancer):
    """SVD-based reweighting (Wu, Zhang and Ré, "Understanding and Improving Information Transfer", 2020).

    w_t = ‖Uᵀ θ_t‖ with U the r left singular vectors of [θ_1 … θ_T] of largest singular value (algorithm 2).
    A task that points away from what tasks have in common gets a small weight.

    In the paper θ_t = Xᵀ y_t, the covariance of inputs and labels of a linear model. It is the negative
    gradient of the squared error at weights of 0. Here θ_t is the gradient of the shared parameters (ours),
    so weights follow the training. With G = V Λ Vᵀ they are w_t² = Σ_k λ_k V_tk² over the r largest λ_k. Only
    ratios of weights matter in the paper; here their mean is 1.

    `unit=True` takes θ_t = g_t / ‖g_t‖ (ours). Without it, a loss in a larger unit gets a larger weight.

    Args:
        tasks: names of all tasks.
        rank: r, at most the number of tasks present.
        unit: gradients of norm 1.
        own: gradients of parameters of a single task.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        rank: Positive = 1,
        unit: bool = False,
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, own=own, default_weights=default_weights)
        self.rank, self.unit = rank, unit

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Lengths of the projections, of mean 1."""
        exact = gramian.double()
        if self.unit:
            norms = exact.diagonal().clamp(min=0).sqrt()
            norms = torch.where(norms > 0, norms, 1.0)
            exact = exact / torch.outer(norms, norms)
        values, vectors = torch.linalg.eigh(exact)
        largest = values.clamp(min=0)[-self.rank :]
        lengths: Tensor = (vectors[:, -self.rank :].square() @ largest).sqrt()
        return lengths / lengths.mean()
