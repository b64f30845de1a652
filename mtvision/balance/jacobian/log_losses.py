"""Rules over gradients of the logarithms of losses, which no unit of a loss can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from mtvision.balance.balancer import Balancer, Need
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Entry

_EPSILON = 1e-8


@BALANCERS.register_module()
class LogLosses(Balancer):
    """The scale-invariant form of a rule over gradients: it gets ∇ ln L_t = g_t / L_t in the place of g_t.

    A loss in another unit then gives the same update. `LogSum` and `Scalarizer(scalarizer="GeometricMean")`
    are such rules over losses, `DBMTL` one over gradients. SI-MTL (Lin et al., arXiv 2308.12029, first
    version) joins logarithms of losses and gradients of equal norm: `balancer=dict(type="NormScaling",
    decay=0.0)`. It scales to the largest norm, `NormScaling` to the mean one.

    A rule inside that reads values of losses is given the losses themselves. Parameters of a single task get
    g_t / L_t too, times what the rule inside gives them.

    Args:
        tasks: names of all tasks.
        balancer: config of the rule inside, which needs `jacobian` or `gramian`.
        default_weights: given to the rule inside.

    Raises:
        ValueError: the rule inside needs something else.
    """

    needs: Need = "jacobian"
    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        balancer: Annotated[Mapping[str, Any], Entry("BALANCERS")],
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.inner: Balancer = BALANCERS.build(
            {**balancer}, tasks=self.tasks, default_weights=default_weights or {}
        )
        if self.inner.needs not in ("jacobian", "gramian"):
            raise ValueError(
                f"LogLosses: {type(self.inner).__name__} needs '{self.inner.needs}'; expected a rule that "
                "needs 'jacobian' or 'gramian'. Rules over losses have such a form of their own: LogSum, or "
                "Scalarizer(scalarizer='GeometricMean')."
            )
        self.needs = self.inner.needs
        self.losses: dict[str, Tensor] = {}

    def see_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Keep the values; the rule inside gets them, too."""
        self.losses = dict(losses)
        if self.inner.common_losses:
            self.inner.see_losses(losses)

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> Tensor:
        """The result of the rule inside on rows over L_t; see the base class."""
        self.check_tasks(tasks)
        return self.inner.aggregate(jacobian / self._scales(jacobian, tasks)[:, None], tasks)

    def weigh(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Weights of g_t from the rule inside on products over L_s L_t; see the base class."""
        self.check_tasks(tasks)
        scales = self._scales(gramian, tasks)
        return self.inner.weigh(gramian / torch.outer(scales, scales), tasks) / scales

    def own_weights(self) -> dict[str, Tensor]:
        """1 / L_t, times the weight of the rule inside."""
        inside = self.inner.own_weights()
        return {
            name: inside.get(name, value.new_ones(())) / (value + _EPSILON)
            for name, value in self.losses.items()
        }

    def weights(self) -> dict[str, Tensor]:
        """Weights of the gradients g_t in the last call; empty if the rule inside has none."""
        inside = self.inner.weights()
        return {
            name: inside[name] / (value + _EPSILON) for name, value in self.losses.items() if name in inside
        }

    def _scales(self, like: Tensor, tasks: Sequence[str]) -> Tensor:
        """L_t + ε (T,) of the tasks."""
        return torch.stack([self.losses[name] for name in tasks]).to(like) + _EPSILON
