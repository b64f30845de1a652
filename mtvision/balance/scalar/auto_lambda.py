"""Weights that are learnt from how training on each task changes the losses of held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import RememberingBalancer, all_finite
from mtvision.core.naming import look_up
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Rate


@BALANCERS.register_module()
class AutoLambda(RememberingBalancer):
    """Auto-Lambda (Liu, James, Davison and Johns, TMLR 2022, arXiv 2202.03091): bi-level weights.

    L = Σ_t λ_t L_t on training images. λ descends Σ_p L_p(θ − α ∇L) on held-out images, over the primary
    tasks p. Its gradient is −α ⟨∇L_t(θ), ∇Σ_p L_p(θ − α ∇L)⟩, see `BilevelStep`. λ takes one step of Adam per
    batch, and the batch is then trained with the new λ. Nothing keeps λ positive, as in the authors' code.

    The authors draw the second batch from the training images as well. Here it is held out. Tasks without a
    loss in a batch keep their λ, but for the momentum of Adam.

    Args:
        tasks: names of all tasks.
        initial: λ_t at the start.
        lr: of Adam.
        primary: tasks whose held-out losses count; None is all.
        default_weights: ignored.

    Raises:
        UnknownNameError: a primary task is no task.
    """

    needs = "bilevel"

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        initial: Rate = 0.1,
        lr: Rate = 1e-4,
        primary: list[str] | None = None,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.initial, self.lr = initial, lr
        chosen = self.tasks if primary is None else primary
        self.primary = tuple(
            look_up("primary task", name, dict.fromkeys(self.tasks, name)) for name in chosen
        )
        self._last: dict[str, Tensor] = {}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Σ λ_t L_t over the losses present."""
        self.check_tasks(list(losses))
        names = [name for name in self.tasks if name in losses]
        values = torch.stack([losses[name] for name in names])
        weights = self._weights(values)[[self.tasks.index(name) for name in names]]
        self._last = dict(zip(names, weights.unbind(), strict=True))
        return (weights * values).sum()

    def judge(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum of the losses of the primary tasks present on held-out images."""
        given = list(losses.values())
        chosen = [loss for name, loss in losses.items() if name in self.primary]
        return torch.stack(chosen).sum() if chosen else given[0].new_zeros(())

    def observe(self, losses: Mapping[str, Tensor], parts: int = 1) -> None:
        """One step of Adam along {task: derivative of the held-out loss for its weight}."""
        if not losses or not all_finite(losses):
            return
        like = next(iter(losses.values()))
        weights = nn.Parameter(self._weights(like).clone())
        absent = torch.zeros_like(like)
        weights.grad = torch.stack([losses.get(name, absent).detach() for name in self.tasks]).to(weights)
        adam = torch.optim.Adam([weights], lr=self.lr)
        if "adam" in self.memory:
            adam.load_state_dict(self.memory["adam"])
        adam.step()
        self.memory = {"weights": weights.detach(), "adam": adam.state_dict()}

    def weights(self) -> dict[str, Tensor]:
        """λ_t of the last batch."""
        return dict(self._last)

    def _weights(self, like: Tensor) -> Tensor:
        found: Tensor = self.memory.get("weights", like.new_full((len(self.tasks),), self.initial))
        return found.detach().to(like)
