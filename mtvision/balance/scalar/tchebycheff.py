"""Smooth Tchebycheff scalarization with a warm-up, as it is trained in practice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtvision.balance.balancer import RememberingBalancer, all_finite
from mtvision.balance.scalar.scalarizer import smooth_maximum
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Count, Positive, Rate

_EPSILON = 1e-20


@BALANCERS.register_module()
class SmoothTchebycheff(RememberingBalancer):
    """STCH (Lin et al., "Smooth Tchebycheff Scalarization", ICML 2024, eq. 11), in logarithms.

    L = T μ ln Σ_t exp( ln(L_t / n_t) / μ ), n_t = mean loss at the end of the warm-up (the nadir).

    During the first `warmup` steps L = Σ_t ln L_t. The last `nadir` steps of the warm-up give n_t. The
    authors' multi-task code and LibMTL do this with epochs: 4 of warm-up, then one that gives the nadir and
    still trains with Σ ln L_t. `warmup` here counts both. The paper's plain form is
    `Scalarizer(scalarizer="STCH")`.

    Args:
        tasks: names of all tasks.
        mu: smoothness μ > 0; the limit 0 is the largest term alone.
        warmup: steps with the sum of logarithms.
        nadir: steps at the end of the warm-up whose mean loss is n_t. A task that was not seen then takes its
            first loss.
        default_weights: ignored.
    """

    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        mu: Rate = 1.0,
        warmup: Count = 500,
        nadir: Positive = 100,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.mu, self.warmup, self.nadir = mu, warmup, nadir
        self.memory = {"calls": 0, "sums": {}, "counts": {}}
        self._last: dict[str, Tensor] = {}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum of logarithms or the smooth maximum of the losses present."""
        self.check_tasks(list(losses))
        names = [name for name in self.tasks if name in losses]
        values = torch.stack([losses[name] for name in names])
        self._last = {}
        if not all_finite(losses):
            return values.sum()
        call = self.memory["calls"]
        self.memory["calls"] = call + 1
        for name in names:
            late = self.warmup - self.nadir <= call < self.warmup
            if late or (call >= self.warmup and name not in self.memory["counts"]):
                self.memory["sums"][name] = self.memory["sums"].get(name, 0.0) + float(losses[name].detach())
                self.memory["counts"][name] = self.memory["counts"].get(name, 0) + 1
        if call < self.warmup:
            total = (values + _EPSILON).log().sum()
        else:
            worst = [self.memory["sums"][name] / self.memory["counts"][name] for name in names]
            ratios = values / values.new_tensor(worst).clamp(min=_EPSILON)
            total = len(names) * smooth_maximum((ratios + _EPSILON).log(), self.mu)
        if values.requires_grad:
            (weights,) = torch.autograd.grad(total, values, retain_graph=True)
            self._last = dict(zip(names, weights.unbind(), strict=True))
        return total

    def weights(self) -> dict[str, Tensor]:
        """Derivative of the last result with respect to each loss."""
        return dict(self._last)
