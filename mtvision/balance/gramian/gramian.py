"""Base of rules that need products of gradients alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtvision.balance.balancer import Need, Own, RememberingBalancer


class GramianBalancer(RememberingBalancer):
    """Weights w(G) from G = J Jᵀ (T, T); the shared gradient is wᵀ J.

    Subclasses write `rule`. It is not asked for gradients that are all zero or not finite; then all weigh 1.

    Args:
        tasks: names of all tasks.
        own: gradients of parameters of a single task: `plain`, or `weighted` by the task's weight.
        default_weights: ignored.

    >>> class InverseNorm(GramianBalancer):
    ...     def rule(self, gramian, tasks):
    ...         return gramian.diagonal().rsqrt()
    >>> InverseNorm(tasks=["depth", "edge"]).weigh(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), ["depth", "edge"])
    tensor([0.5000, 1.0000])
    """

    needs: Need = "gramian"

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.own = own
        self.losses: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    @abstractmethod
    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Weights (T,) of the gradients of `tasks` from their products (T, T), finite and not all zero.

        The products and `self.losses` are in the memory of the processor, on any device.
        """

    def see_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Keep the values for `rule`, as `self.losses`."""
        self.losses = dict(losses)

    def weigh(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """See the base class.

        Raises:
            ValueError: the shape does not fit the tasks, or there is none.
        """
        self.check_tasks(tasks)
        if gramian.shape != (len(tasks), len(tasks)):
            raise ValueError(
                f"{type(self).__name__}: products of gradients have shape {tuple(gramian.shape)} for the "
                f"tasks {list(tasks)}; expected {(len(tasks), len(tasks))}."
            )
        host = gramian.cpu()  # few numbers, of which a search reads some back in every iteration
        self.losses = _on_host(self.losses)
        if not bool(host.isfinite().all()) or not bool(host.diagonal().max() > 0):
            weights = gramian.new_ones(len(tasks))
        else:
            with torch.no_grad():
                weights = self.rule(host, tasks).to(gramian)
        self._last = dict(zip(tasks, weights.detach().unbind(), strict=True))
        return weights

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> Tensor:
        """wᵀ J; see the base class."""
        self.check_tasks(tasks)
        return self.weigh(jacobian @ jacobian.T, tasks) @ jacobian

    def weights(self) -> dict[str, Tensor]:
        """w of the last call."""
        return dict(self._last)

    def own_weights(self) -> dict[str, Tensor]:
        """The weights if `own` is `weighted`."""
        return dict(self._last) if self.own == "weighted" else {}


def _on_host(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses in the memory of the processor, by one copy for all of them."""
    if all(item.device.type == "cpu" for item in losses.values()):
        return dict(losses)
    return dict(zip(losses, torch.stack([*losses.values()]).detach().cpu().unbind(), strict=True))
