"""Rules that keep a running gradient of every task: MoCo and DB-MTL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from mtvision.balance.balancer import RememberingBalancer
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Factor, Share

_EPSILON = 1e-8
WITHOUT_STATE = "a rule without running gradients (UPGrad, MGDA, NormScaling, ...)"


class TrackedGradients(RememberingBalancer):
    """Base of rules with a matrix (T, P) of running gradients. Memory: that of the gradients once more.

    Columns are the shared parameters, which depend on the tasks present. So every batch needs all tasks.
    """

    needs = "jacobian"
    common_losses = True

    def __init__(self, *, tasks: Sequence[str], default_weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.losses: dict[str, Tensor] = {}
        self.memory = {"calls": 0}

    def see_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Keep the values for `aggregate`."""
        self.losses = dict(losses)

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> Tensor:
        """See the base class; gradients that are all zero or not finite are added up and not remembered.

        Raises:
            ValueError: a task is missing, or the number of shared parameters has changed.
        """
        self.check_tasks(tasks)
        self.require_all(tasks, WITHOUT_STATE)
        # Without another tensor of the size of the matrix.
        largest = torch.stack(jacobian.aminmax()).abs().max() if jacobian.numel() else jacobian.sum()
        if not bool(largest.isfinite()) or not bool(largest > 0):
            return jacobian.sum(dim=0)
        kept: Tensor | None = self.memory.get("running")
        if kept is not None and kept.shape != jacobian.shape:
            raise ValueError(
                f"{type(self).__name__}: running gradients have shape {tuple(kept.shape)}, this batch's "
                f"{tuple(jacobian.shape)}. Freezing or thawing shared parameters is not possible with this "
                f"rule; use {WITHOUT_STATE}."
            )
        self.memory["calls"] += 1
        values = torch.stack([self.losses[name] for name in tasks]).to(jacobian)
        running = torch.zeros_like(jacobian) if kept is None else kept.to(jacobian)
        self.memory["running"] = running
        with torch.no_grad():
            return self._combined(jacobian, values, running, self.memory["calls"])

    def _combined(self, jacobian: Tensor, losses: Tensor, running: Tensor, call: int) -> Tensor:
        """The shared gradient (P,); changes the running gradients in place."""
        raise NotImplementedError


@BALANCERS.register_module()
class MoCo(TrackedGradients):
    """MoCo (Fernando et al., ICLR 2023, algorithm 1): weights from corrected running gradients.

    y_t ← y_t − β/k^σ (y_t − ĝ_t), λ ← P( λ − γ/k^σ' (Y Yᵀ + ρ I) λ ), update = Yᵀ λ, step k = 1, 2, …

    The paper has ĝ_t = g_t and the projection P onto the simplex (`projection="simplex"`, `scaled=False`).
    LibMTL and the authors' multi-task code have ĝ_t = L_t g_t / ‖g_t‖ and a softmax over the new λ, which
    keeps it near 1/T. The default is theirs.

    Args:
        tasks: names of all tasks.
        beta: β.
        beta_sigma: σ.
        gamma: γ.
        gamma_sigma: σ'.
        rho: ρ.
        projection: P.
        scaled: ĝ_t is of the size of the loss.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        beta: Factor = 0.5,
        beta_sigma: Factor = 0.5,
        gamma: Factor = 0.1,
        gamma_sigma: Factor = 0.5,
        rho: Factor = 0.0,
        projection: Literal["softmax", "simplex"] = "softmax",
        scaled: bool = True,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.beta, self.beta_sigma = beta, beta_sigma
        self.gamma, self.gamma_sigma, self.rho = gamma, gamma_sigma, rho
        self.projection, self.scaled = projection, scaled

    def _combined(self, jacobian: Tensor, losses: Tensor, running: Tensor, call: int) -> Tensor:
        sizes = torch.ones_like(losses)
        if self.scaled:
            sizes = losses / (torch.linalg.vector_norm(jacobian, dim=1) + _EPSILON)
        share = self.beta / call**self.beta_sigma
        running.mul_(1 - share).addcmul_(jacobian, (share * sizes)[:, None])
        count = len(losses)
        weights: Tensor = self.memory.get("weights", losses.new_full((count,), 1 / count)).to(losses)
        slope = running @ (running.T @ weights) + self.rho * weights
        weights = weights - self.gamma / call**self.gamma_sigma * slope
        weights = weights.softmax(dim=0) if self.projection == "softmax" else onto_simplex(weights)
        self.memory["weights"] = weights
        return weights @ running


@BALANCERS.register_module()
class DBMTL(TrackedGradients):
    """DB-MTL (Lin et al., "Dual-Balancing", arXiv 2308.12029, algorithm 1): log losses, equal gradient norms.

    ĝ_t = gradient of ln(L_t + ε), b_t ← ĝ_t + β/k^σ (b_t − ĝ_t), update = Σ_t max_s‖b_s‖ b_t / ‖b_t‖.

    As in LibMTL the first b_t is (1 − β) ĝ_t: there is no correction for the start. The paper lets β decay,
    LibMTL's default is σ = 0. Parameters of a single task get ĝ_t.

    Args:
        tasks: names of all tasks.
        beta: β.
        beta_sigma: σ.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        beta: Share = 0.9,
        beta_sigma: Factor = 0.0,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.beta, self.beta_sigma = beta, beta_sigma

    def _combined(self, jacobian: Tensor, losses: Tensor, running: Tensor, call: int) -> Tensor:
        kept = self.beta / call**self.beta_sigma
        running.mul_(kept).addcmul_(jacobian, ((1 - kept) / (losses + _EPSILON))[:, None])
        norms = torch.linalg.vector_norm(running, dim=1)
        result: Tensor = (norms.max() / (norms + _EPSILON)) @ running
        return result

    def own_weights(self) -> dict[str, Tensor]:
        """1 / (L_t + ε), the derivative of the logarithm."""
        return {name: 1 / (value + _EPSILON) for name, value in self.losses.items()}


def onto_simplex(point: Tensor) -> Tensor:
    """The nearest point (T,) with entries >= 0 that add up to 1."""
    ordered, _ = point.sort(descending=True)
    excess = (ordered.cumsum(dim=0) - 1) / torch.arange(1, len(point) + 1, device=point.device)
    last = int((ordered > excess).sum()) - 1
    return (point - excess[last]).clamp(min=0)
