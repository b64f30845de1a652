"""The Nash bargaining solution of multi-task learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtvision.balance.balancer import Own
from mtvision.balance.gramian.gramian import GramianBalancer
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Factor, Positive

_RIDGE = 1e-8
"""Added to the diagonal of the normalised products: opposite gradients have no solution without it."""
_ITERATIONS = 100


@BALANCERS.register_module()
class NashMTL(GramianBalancer):
    """Nash-MTL (Navon et al., ICML 2022, eq. 2): w with G w = 1/w, G = J Jᵀ / ‖J Jᵀ‖.

    The solution is the minimum of ½ wᵀ G w − Σ ln w_t, which is convex. Newton's method finds it to double
    precision. The authors' code and torchjd solve a sequence of convex programmes, which stops after 20 of
    them. They need cvxpy and ECOS, and their state cannot be saved.

    As in the authors' code an update longer than `max_norm` is scaled down to it. With G normalised that is
    nearly always the case. Gradients of parameters of a single task are not scaled down.

    Args:
        tasks: names of all tasks.
        max_norm: of the shared gradient; 0 = no limit.
        every: steps between solutions; the last weights are used in between.
        own: gradients of parameters of a single task; `weighted` as in LibMTL and the authors' code.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        max_norm: Factor = 1.0,
        every: Positive = 1,
        own: Own = "weighted",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, own=own, default_weights=default_weights)
        self.max_norm, self.every = max_norm, every
        self.memory = {"calls": 0, "weights": {}}
        self._whole: dict[str, Tensor] = {}

    def weigh(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """See the base class."""
        self._whole = {}
        return super().weigh(gramian, tasks)

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """w, scaled down if the update is too long."""
        call, known = self.memory["calls"], self.memory["weights"]
        self.memory["calls"] = call + 1
        exact = gramian.double()
        if call % self.every == 0 or not set(tasks) <= set(known):
            solution = bargain(exact / exact.norm())
            self.memory["weights"] = dict(zip(tasks, solution.tolist(), strict=True))
        weights = exact.new_tensor([self.memory["weights"][name] for name in tasks])
        self._whole = dict(zip(tasks, weights.unbind(), strict=True))
        length = (weights @ exact @ weights).clamp(min=0).sqrt()
        if self.max_norm > 0 and bool(length > self.max_norm):
            weights = weights * (self.max_norm / length)
        return weights

    def own_weights(self) -> dict[str, Tensor]:
        """The weights if `own` is `weighted`, before the update is scaled down."""
        weights = super().own_weights()
        return {name: self._whole.get(name, item).to(item) for name, item in weights.items()}


def bargain(gramian: Tensor) -> Tensor:
    """w > 0 with G w = 1/w, by Newton's method with the steps of self-concordant functions.

    Args:
        gramian: (T, T) positive semi-definite, of norm about 1.
    """
    size = len(gramian)
    matrix = gramian + _RIDGE * torch.eye(size, dtype=gramian.dtype, device=gramian.device)
    weights: Tensor = matrix.diagonal().rsqrt() / size**0.5
    for _ in range(_ITERATIONS):
        slope = matrix @ weights - 1 / weights
        curvature = matrix + torch.diag(weights**-2)
        step = torch.linalg.solve(curvature, slope)
        decrement = float((slope @ step).clamp(min=0).sqrt())
        weights = weights - step / (1 + decrement if decrement > 0.25 else 1)
        if decrement < 1e-12:
            break
    return weights
