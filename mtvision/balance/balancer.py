"""The contract of a balancer: a rule that combines the losses of several tasks, or their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError


class Balancer(nn.Module):
    """Base of all balancers; subclasses set `needs` and write the one method that belongs to it.

    `scalar`: `combine` turns losses into one scalar, a step calls backward on it. Works on the losses of one
    process, so that data-parallel averaging happens to its gradients.
    `jacobian`: `aggregate` turns the per-task gradients of the shared parameters, already averaged over
    processes, into one gradient. It must give the same result on every process.

    Learnable parameters have the role `balancer` and must be handed to the optimizer; all state is in
    `state_dict`. Regularisers (auxiliary losses) are never shown to a balancer.

    Args:
        tasks: names of all tasks of the run, in order. A batch may hold any subset of them.
        default_weights: {task: weight} of the protocol's weighted sum. The suite gives it to every balancer;
            rules that do not weigh by constants ignore it.
    """

    needs: ClassVar[Literal["scalar", "jacobian"]] = "scalar"

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(
                f"{type(self).__name__}: tasks must be non-empty and distinct, got {list(tasks)}."
            )

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One scalar from the losses of the tasks present in a batch (`scalar` balancers).

        Raises:
            ValueError: no loss is given.
            UnknownNameError: a task is not one of `tasks`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs '{self.needs}' and does not combine losses.")

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> Tensor:
        """One gradient (P,) from a matrix (T, P) whose row i is the gradient of task `tasks[i]` (`jacobian`).

        `tasks` are the tasks present in the batch on any process, in the order of `self.tasks`. The matrix
        must not be modified.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs '{self.needs}' and does not aggregate gradients."
        )

    def weights(self) -> dict[str, Tensor]:
        """{task: weight} that the last call gave to each loss or gradient, for logs; empty if it has none."""
        return {}

    def check_tasks(self, names: Sequence[str]) -> None:
        """Refuse an empty or unknown set of tasks, with the errors that `combine` documents."""
        if not names:
            raise ValueError(f"{type(self).__name__}: there is no loss to balance; tasks: {self.tasks}.")
        for name in names:
            if name not in self.tasks:
                raise UnknownNameError(f"task of {type(self).__name__}", name, self.tasks)


def complete_weights(owner: str, what: str, given: Mapping[str, float], tasks: Sequence[str]) -> list[float]:
    """The numbers of `given` in the order of `tasks`.

    Raises:
        UnknownNameError: a key is no task.
        ValueError: a task is missing, or a number is negative or not finite.
    """
    for name in given:
        if name not in tasks:
            raise UnknownNameError(f"task in {what} of {owner}", name, tasks)
    missing = [name for name in tasks if name not in given]
    if missing:
        raise ValueError(f"{owner}: no number in {what} for {', '.join(missing)}; give one per task.")
    numbers = [float(given[name]) for name in tasks]
    for name, number in zip(tasks, numbers, strict=True):
        if not 0 <= number < float("inf"):
            raise ValueError(f"{owner}: {what} of {name} must be finite and not negative, got {number}.")
    return numbers
