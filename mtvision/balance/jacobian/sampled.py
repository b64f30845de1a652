"""Rules that need gradients of independent parts of a batch: MoDo and SDMGrad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import MoDoWeighting, SDMGradWeighting, Weighting

from mtvision.balance.balancer import Balancer
from mtvision.balance.foreign import Held
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Factor, Positive, Rate, Share


class SampledWeights(Balancer):
    """Base: weights w from J₁ J₂ᵀ of two parts of a batch, shared gradient J₃ᵀ w of a third.

    Products of gradients of the same images are biased, those of independent images are not. The weights are
    state per task, so every batch needs all tasks.
    """

    needs = "several_batches"
    batches = 3

    def __init__(
        self,
        weighting: Weighting[Any],
        *,
        tasks: Sequence[str],
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self._held = Held(weighting)
        self._last: dict[str, Tensor] = {}

    def aggregate_parts(self, jacobians: Sequence[Tensor], tasks: Sequence[str]) -> Tensor:
        """See the base class.

        Raises:
            ValueError: a task is missing.
        """
        self.check_tasks(tasks)
        self.require_all(tasks, "a rule without state (UPGrad, MGDA, NormScaling, ...)")
        first, second, third = jacobians
        products = first @ second.T
        self._last = {}
        if not bool(products.isfinite().all()) or not bool(first.any()):
            return third.sum(dim=0)
        weighting = self._held.on(products.device)
        with torch.no_grad():
            weights: Tensor = weighting(products)
        self._last = dict(zip(tasks, weights.unbind(), strict=True))
        return weights @ third

    def weights(self) -> dict[str, Tensor]:
        """w of the last call."""
        return dict(self._last)

    def get_extra_state(self) -> dict[str, Any]:
        """The weighting's own state (part of `state_dict`)."""
        return {"state": self._held.state()}

    def set_extra_state(self, state: Any) -> None:
        """Counterpart of `get_extra_state`; the state is put in place on the next call's device."""
        self._held.load(state["state"])


@BALANCERS.register_module()
class MoDo(SampledWeights):
    """MoDo (Chen et al., "Three-Way Trade-Off", NeurIPS 2023, algorithm 2), by torchjd.

    λ ← P( λ − γ (J₁ J₂ᵀ + ρ I) λ ) with the projection P onto the simplex, shared gradient = J₃ᵀ λ.

    LibMTL's γ is 1e-3, torchjd's 0.1. Parameters of a single task get the mean over all parts, as in LibMTL.

    Args:
        tasks: names of all tasks.
        gamma: γ.
        rho: ρ.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        gamma: Rate = 0.1,
        rho: Factor = 0.1,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(MoDoWeighting(gamma=gamma, rho=rho), tasks=tasks, default_weights=default_weights)


@BALANCERS.register_module()
class SDMGrad(SampledWeights):
    """SDMGrad (Xiao et al., NeurIPS 2023, algorithm 1), by torchjd.

    `n_iter` projected steps on ½ wᵀ A w + λ wᵀ A w̃, A = J₁ J₂ᵀ over its squared scale, w̃ = 1/T. The shared
    gradient is J₃ᵀ (w + λ w̃) / (1 + λ). Weights carry over to the next step, the momentum does not.

    The rate of the inner steps is 5 in LibMTL, 10 in torchjd. Parameters of a single task get the mean over
    all parts; LibMTL adds them up.

    Args:
        tasks: names of all tasks.
        lr: of the inner steps.
        momentum: of the inner steps, below 1.
        n_iter: inner steps.
        lambda_: λ, how near the update stays to the mean gradient.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        lr: Rate = 10.0,
        momentum: Share = 0.5,
        n_iter: Positive = 20,
        lambda_: Factor = 0.3,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        weighting = SDMGradWeighting(lr=lr, momentum=momentum, n_iter=n_iter, lambda_=lambda_)
        super().__init__(weighting, tasks=tasks, default_weights=default_weights)
