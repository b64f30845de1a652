"""Impartial multi-task learning: losses of equal size and gradients with equal projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchjd.aggregation import IMTLGWeighting

from mtvision.balance.gramian.gramian import GramianBalancer
from mtvision.core.registry import BALANCERS


@BALANCERS.register_module()
class IMTL(GramianBalancer):
    """IMTL (Liu et al., ICLR 2021, algorithm 1): IMTL-L on losses and IMTL-G on gradients.

    Losses become e^{s_t} L_t − s_t with learnt s_t. Their gradients e^{s_t} g_t get weights α with Σ α = 1,
    such that the result has the same projection onto the direction of every task. Parameters of a single
    task get e^{s_t} g_t. α is torchjd's. The parts alone are `Scalarizer(scalarizer="IMTLL")` and
    `TorchJD(aggregator="IMTLG")`.

    Args:
        tasks: names of all tasks.
        default_weights: ignored.
    """

    common_losses = True

    def __init__(self, *, tasks: Sequence[str], default_weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.log_scale = nn.Parameter(torch.zeros(len(self.tasks)))
        self.search = IMTLGWeighting()

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """α_t e^{s_t}, and a gradient for s."""
        rows = [self.tasks.index(name) for name in tasks]
        scales = self.log_scale.detach()[rows].exp().to(gramian)
        gradient = torch.zeros_like(self.log_scale)
        values = torch.stack([self.losses[name] for name in tasks]).to(scales)
        gradient[rows] = (scales * values - 1).to(gradient)
        self.log_scale.grad = gradient if self.log_scale.grad is None else self.log_scale.grad + gradient
        weights: Tensor = self.search(gramian * torch.outer(scales, scales))
        return weights * scales

    def own_weights(self) -> dict[str, Tensor]:
        """e^{s_t} of every task."""
        return dict(zip(self.tasks, self.log_scale.detach().exp().unbind(), strict=True))
