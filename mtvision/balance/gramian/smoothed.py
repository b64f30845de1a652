"""Weights of any rule on products of gradients, averaged over batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from mtvision.balance.balancer import Balancer, Own
from mtvision.balance.gramian.gramian import GramianBalancer
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Entry, Share


@BALANCERS.register_module()
class SmoothedWeights(GramianBalancer):
    """CR-MOGM (Zhou et al., NeurIPS 2022): running averages of a rule's weights.

    λ_k = α λ_{k−1} + (1 − α) λ̂_k with the weights λ̂_k of the rule inside.

    Weights of one batch are biased by its noise, their averages less so. The first λ is the rule's own. On
    full labels it equals torchjd's `CRMOGMWeighting`. A task without labels keeps its λ.

    The paper lets α grow towards 1 as the learning rate falls. Here it is constant, as in torchjd.

    Args:
        tasks: names of all tasks.
        balancer: config of the rule inside, which needs `gramian`.
        alpha: α, share of the earlier weights.
        own: gradients of parameters of a single task.
        default_weights: given to the rule inside.

    Raises:
        ValueError: the rule inside does not need `gramian`.

    >>> rule = SmoothedWeights(tasks=["depth", "edge"], balancer={"type": "MGDA"}, alpha=0.5)
    >>> rule.weigh(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), ["depth", "edge"])
    tensor([0.2000, 0.8000])
    >>> rule.weigh(torch.eye(2), ["depth", "edge"])  # MGDA alone gives a half to each
    tensor([0.3500, 0.6500])
    """

    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        balancer: Annotated[Mapping[str, Any], Entry("BALANCERS")],
        alpha: Share = 0.9,
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, own=own, default_weights=default_weights)
        self.alpha = alpha
        self.inner: Balancer = BALANCERS.build(
            {**balancer}, tasks=self.tasks, default_weights=default_weights or {}
        )
        if self.inner.needs != "gramian":
            raise ValueError(
                f"SmoothedWeights: {type(self.inner).__name__} needs '{self.inner.needs}'; expected a rule "
                "that needs 'gramian', such as MGDA, UPGrad or NashMTL."
            )

    def see_losses(self, losses: Mapping[str, Tensor]) -> None:
        """The rule inside gets them, too."""
        super().see_losses(losses)
        if self.inner.common_losses:
            self.inner.see_losses(losses)

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """λ_k of the tasks present."""
        fresh = self.inner.weigh(gramian, tasks)
        kept: dict[str, Tensor] = self.memory.setdefault("weights", {})
        for name, weight in zip(tasks, fresh.unbind(), strict=True):
            earlier = kept.get(name, weight).to(weight)
            kept[name] = self.alpha * earlier + (1 - self.alpha) * weight
        return torch.stack([kept[name] for name in tasks])
