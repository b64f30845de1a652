"""Learnt weights from homoscedastic uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer, complete_weights
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Rate, TaskWeights


@BALANCERS.register_module()
class Uncertainty(Balancer):
    """Weights learnt as homoscedastic uncertainty (Kendall et al., CVPR 2018, eq. 7 and 10).

    L = Σ_t ( c_t e^{−s_t} L_t + ½ s_t ), s_t = ln σ_t² learnt.

    At the optimum e^{s_t} = 2 c_t L_t: the weight of a loss becomes 1 / (2 L_t), whatever c_t is.

    The paper's c_t is ½ for a squared error (Gaussian likelihood) and 1 for cross-entropy (softmax with
    temperature). Libraries differ: LibMTL and torchjd take ½ for all tasks, some repositories 1 for L1.

    Args:
        tasks: names of all tasks.
        factors: c_t > 0; one number for all tasks or {task: number} for every task.
        initial: s_t at the start; 0 in torchjd, −0.5 in LibMTL.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        factors: Rate | TaskWeights = 0.5,
        initial: float = 0.0,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        given = factors if isinstance(factors, Mapping) else dict.fromkeys(self.tasks, float(factors))
        numbers = complete_weights("Uncertainty", "factors", given, self.tasks)
        if min(numbers) == 0:
            raise ValueError(
                "Uncertainty: factors must be positive; leave a task out instead of giving it 0."
            )
        self.factors = dict(zip(self.tasks, numbers, strict=True))
        self.log_variance = nn.Parameter(torch.full((len(self.tasks),), float(initial)))

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Sum over the losses present; s_t of an absent task gets a gradient of exactly 0."""
        self.check_tasks(list(losses))
        terms = []
        for name, loss in losses.items():
            s = self.log_variance[self.tasks.index(name)]
            terms.append(self.factors[name] * (-s).exp() * loss + s / 2)
        return torch.stack(terms).sum()

    def weights(self) -> dict[str, Tensor]:
        """c_t e^{−s_t} of every task."""
        log_variance = self.log_variance.detach()
        return {
            name: self.factors[name] * (-s).exp() for name, s in zip(self.tasks, log_variance, strict=True)
        }
