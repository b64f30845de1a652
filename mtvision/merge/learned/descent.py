"""The optimisation loop of learned mergers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mtvision.core.sample import Batch
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import MergeError

LISTED = 50
"""How many losses a record holds, evenly spread."""


class Descent:
    """Adam on some tensors, with the losses it has seen.

    Args:
        method: for messages.
        groups: (tensors, learning rate) pairs.
    """

    def __init__(self, method: str, groups: Sequence[tuple[Sequence[Tensor], float]]) -> None:
        self._method = method
        self._tensors = [item for tensors, _ in groups for item in tensors]
        self._optimizer = torch.optim.Adam(
            [{"params": list(tensors), "lr": lr} for tensors, lr in groups], lr=1.0
        )
        self.losses: list[float] = []

    def step(self, loss: Tensor) -> None:
        """One update; a loss that depends on none of the tensors changes nothing.

        Raises:
            MergeError: the loss is NaN or infinite.
        """
        value = float(loss.detach())
        if not abs(value) < float("inf"):
            raise MergeError(
                f"{self._method}: the loss of step {len(self.losses) + 1} is {value}. Use a lower learning "
                "rate, and look at the parents' own scores."
            )
        self.losses.append(value)
        if not loss.requires_grad:
            return
        gradients = torch.autograd.grad(loss, self._tensors, allow_unused=True)
        for tensor, gradient in zip(self._tensors, gradients, strict=True):
            tensor.grad = gradient
        self._optimizer.step()


def minimise(
    problem: MergeProblem, descent: Descent, loss: Callable[[Batch], Tensor], steps: int
) -> dict[str, Any]:
    """One update per batch.

    Args:
        problem: its batches.
        descent: the optimiser.
        loss: of a batch.
        steps: number of updates.

    Returns:
        Facts for the record.

    Raises:
        MergeError: a loss is not finite, or nothing is held out.
    """
    for batch in batches(problem, steps):
        descent.step(loss(batch))
    return losses_of(descent)


def batches(problem: MergeProblem, steps: int) -> Iterator[Batch]:
    """So many batches; none is read for 0."""
    return islice(problem.endless(), steps)


def losses_of(descent: Descent) -> dict[str, Any]:
    """Number of updates, and losses evenly spread over them, the last included."""
    losses = descent.losses
    count = min(LISTED, len(losses))
    chosen = [(index + 1) * len(losses) // count - 1 for index in range(count)]
    return {"updates": len(losses), "losses": [losses[index] for index in chosen]}
