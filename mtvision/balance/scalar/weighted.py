"""Constant weights, the baseline of every other balancer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtvision.balance.balancer import Balancer, complete_weights
from mtvision.core.registry import BALANCERS
from mtvision.core.values import TaskWeights


@BALANCERS.register_module()
class FixedWeights(Balancer):
    """Weighted sum of the losses with constant weights: L = Σ_t λ_t L_t over the tasks present.

    Args:
        tasks: names of all tasks.
        weights: {task: λ_t >= 0}, one for every task. None takes the protocol's.
        default_weights: the protocol's; a task it does not name weighs 1.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        weights: TaskWeights | None = None,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        if weights is None:
            weights = {name: (default_weights or {}).get(name, 1.0) for name in self.tasks}
        numbers = complete_weights("FixedWeights", "weights", weights, self.tasks)
        if not any(numbers):
            raise ValueError("FixedWeights: all weights are 0, so that nothing is learnt; raise one of them.")
        self.task_weights = dict(zip(self.tasks, numbers, strict=True))

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the losses present."""
        self.check_tasks(list(losses))
        return torch.stack([self.task_weights[name] * loss for name, loss in losses.items()]).sum()

    def weights(self) -> dict[str, Tensor]:
        """λ_t of every task."""
        return {name: torch.tensor(weight) for name, weight in self.task_weights.items()}
