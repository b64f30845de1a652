"""A rule that weighs the losses of several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mtvision.balance.balancer import Balancer
from mtvision.core.registry import BALANCERS


@BALANCERS.register_module()
class RevisedUncertainty(Balancer):
    """Learnt weights whose regulariser stays positive (Liebel and Körner, arXiv:1805.06334, eq. 5).

    L = sum_t ( L_t / (2 v_t) + ln(1 + v_t) ), with v_t = exp(s_t) learnt.

    Args:
        options: of every balancer, supplied: `tasks`, `default_weights`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum over the tasks of the batch; an absent task gets a gradient of 0."""
        self.check_tasks(list(losses))
        variances = dict(zip(self.tasks, self.log_variance, strict=True))
        terms = [
            loss * (-variances[name]).exp() / 2 + softplus(variances[name]) for name, loss in losses.items()
        ]
        return torch.stack(terms).sum()

    def weights(self) -> dict[str, Tensor]:
        """What every loss is multiplied by, for logs."""
        return dict(zip(self.tasks, (-self.log_variance.detach()).exp() / 2, strict=True))
