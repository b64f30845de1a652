"""Sum of logarithms of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtvision.balance.balancer import Balancer, complete_weights
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Factor, TaskWeights


@BALANCERS.register_module()
class LogSum(Balancer):
    """Weighted sum of the logarithms of the losses: L = Σ_t λ_t ln(L_t + ε).

    The gradient is Σ_t λ_t ∇L_t / (L_t + ε), so the unit of a task has no effect.

    The `log` scheme of MTMamba and MTMamba++ (Lin et al., 2024; `MultiTaskLoss_log`, λ_t = 1, ε = 1e-8). The
    protocol's weights are therefore not used. The logarithm is not linear: as in the authors' code, it
    is taken of each process's and each accumulated micro-batch's own loss.

    Args:
        tasks: names of all tasks.
        epsilon: ε > 0, keeps a loss of 0 finite.
        weights: {task: λ_t >= 0}, one for every task; None is 1 for all.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        epsilon: Factor = 1e-8,
        weights: TaskWeights | None = None,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        if not 0 < epsilon < float("inf"):
            raise ValueError(f"LogSum: epsilon must be positive, got {epsilon}.")
        self.epsilon = epsilon
        given = dict.fromkeys(self.tasks, 1.0) if weights is None else weights
        numbers = complete_weights("LogSum", "weights", given, self.tasks)
        self.task_weights = dict(zip(self.tasks, numbers, strict=True))
        self._last: dict[str, Tensor] = {}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the logarithms of the losses present."""
        self.check_tasks(list(losses))
        self._last = {
            name: self.task_weights[name] / (loss.detach() + self.epsilon) for name, loss in losses.items()
        }
        terms = [self.task_weights[name] * (loss + self.epsilon).log() for name, loss in losses.items()]
        return torch.stack(terms).sum()

    def weights(self) -> dict[str, Tensor]:
        """λ_t / (L_t + ε) of the last batch: what each gradient was multiplied by."""
        return dict(self._last)
