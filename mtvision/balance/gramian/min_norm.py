"""The multiple gradient descent algorithm, with its normalisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torchjd.aggregation import MGDAWeighting

from mtvision.balance.balancer import Own
from mtvision.balance.gramian.gramian import GramianBalancer
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Positive, Rate

Normalisation = Literal["none", "l2", "loss", "loss+"]


@BALANCERS.register_module()
class MGDA(GramianBalancer):
    """MGDA (Sener and Koltun, NeurIPS 2018, algorithm 2): the point of least norm in the hull of gradients.

    w = argmin ‖Σ_t w_t g_t / n_t‖², w ≥ 0, Σ w = 1. n_t is 1 (`none`), ‖g_t‖ (`l2`), L_t (`loss`) or
    L_t ‖g_t‖ (`loss+`). The search is torchjd's (Frank-Wolfe).

    The authors' code applies w to the gradients as they are (`applied="gradients"`, the default). LibMTL
    applies it to the normalised ones (`applied="normalised"`).

    Args:
        tasks: names of all tasks.
        normalise: n_t.
        applied: to what.
        epsilon: step below which the search ends.
        max_iters: of the search.
        own: gradients of parameters of a single task.
        default_weights: ignored.
    """

    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        normalise: Normalisation = "none",
        applied: Literal["gradients", "normalised"] = "gradients",
        epsilon: Rate = 1e-3,
        max_iters: Positive = 100,
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, own=own, default_weights=default_weights)
        self.normalise, self.applied = normalise, applied
        self.search = MGDAWeighting(epsilon=epsilon, max_iters=max_iters)

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """w, over n_t if it is applied to the normalised gradients."""
        scales = normalisers(self.normalise, gramian, [self.losses.get(name) for name in tasks])
        weights: Tensor = self.search(gramian / torch.outer(scales, scales))
        return weights / scales if self.applied == "normalised" else weights


def normalisers(kind: Normalisation, gramian: Tensor, losses: Sequence[Tensor | None]) -> Tensor:
    """n_t > 0 (T,) of each gradient.

    Args:
        kind: see `MGDA`.
        gramian: products of gradients (T, T).
        losses: values, read by `loss` and `loss+`.
    """
    tiny = torch.finfo(gramian.dtype).tiny ** 0.5  # its square, which divides products, is no zero
    scales = torch.ones_like(gramian.diagonal())
    if kind in ("l2", "loss+"):
        scales = scales * gramian.diagonal().clamp(min=0).sqrt()
    if kind in ("loss", "loss+"):
        scales = scales * torch.stack([item.to(gramian) for item in losses if item is not None])
    return torch.where(scales > tiny, scales, 1.0)  # a task without gradient or loss is not enlarged
