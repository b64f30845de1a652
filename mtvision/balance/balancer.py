"""The contract of a balancer: a rule that combines the losses of several tasks, or their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError

Need = Literal[
    "scalar", "jacobian", "gramian", "features", "extra_forward", "held_out", "bilevel", "several_batches"
]
Own = Literal["plain", "weighted"]
"""Gradients of parameters of a single task: as they are, or times the task's weight."""
SERVED_BY: dict[Need, str] = {
    "scalar": "PlainStep",
    "jacobian": "PlainStep",
    "gramian": "PlainStep",
    "features": "PlainStep",
    "extra_forward": "PlainStep",
    "held_out": "HeldOutStep",
    "bilevel": "BilevelStep",
    "several_batches": "SeveralBatchesStep",
}
"""{need: name of a step that serves it}, for error messages."""


class Balancer(nn.Module):
    """Base of all balancers; subclasses set `needs` and write the methods that belong to it.

    Rules over losses write `combine`, which turns losses into one scalar. A step calls backward on it.

    * `scalar`: the losses of the batch are enough.
    * `extra_forward`: `observe` is also given the losses of the same batch after the optimizer's update.
    * `held_out`: `observe` is also given losses of training images that are held out.
    * `bilevel`: `observe` is given the derivative of a held-out loss for the weight of each task, and `judge`
      says which loss that is.

    Rules over gradients get the per-task gradients of the shared parameters, averaged over processes. They
    must give the same result on every process.

    * `jacobian`: `aggregate` turns the matrix of gradients into one gradient.
    * `gramian`: `weigh` turns the products of the gradients into weights (`GramianBalancer`).
    * `features`: `weigh` is given products of gradients of the encoder's features instead.
    * `several_batches`: `aggregate_parts` is given the matrices of `batches` disjoint parts of a batch.

    Learnable parameters have the role `balancer` and must be handed to the optimizer; all state is in
    `state_dict`. Regularisers (auxiliary losses) are never shown to a balancer.

    Args:
        tasks: names of all tasks of the run, in order. A batch may hold any subset of them.
        default_weights: {task: weight} of the protocol's weighted sum. The suite gives it to every balancer;
            rules that do not weigh by constants ignore it.

    >>> class Total(Balancer):
    ...     def combine(self, losses):
    ...         return torch.stack(list(losses.values())).sum()
    >>> Total(tasks=["depth", "edge"]).combine({"depth": torch.tensor(2.0), "edge": torch.tensor(1.0)})
    tensor(3.)
    """

    needs: Need = "scalar"
    common_losses: ClassVar[bool] = False
    """Whether the rule reads the values of losses and gets their means over processes: in `combine`, and
    before gradients are aggregated in `see_losses`."""
    batches: ClassVar[int] = 1
    """Parts of a batch that a `several_batches` rule reads."""

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

    @property
    def combines(self) -> bool:
        """Whether the rule writes `combine`; the others are given gradients."""
        return self.needs in ("scalar", "extra_forward", "held_out", "bilevel")

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One scalar from the losses of the tasks present in a batch.

        Raises:
            ValueError: no loss is given.
            UnknownNameError: a task is not one of `tasks`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs '{self.needs}' and does not combine losses.")

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> Tensor:
        """One gradient (P,) from a matrix (T, P) whose row i is the gradient of task `tasks[i]` (`jacobian`).

        `tasks` are the tasks present in the batch on any process, in the order of `self.tasks`. The matrix
        must not be modified. The result must be a new tensor, because it becomes the parameters' gradient.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs '{self.needs}' and does not aggregate gradients."
        )

    def weigh(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Weights (T,) of the gradients of `tasks` from their products (T, T) (`gramian` and `features`)."""
        raise NotImplementedError(
            f"{type(self).__name__} needs '{self.needs}' and does not weigh by products of gradients."
        )

    def aggregate_parts(self, jacobians: Sequence[Tensor], tasks: Sequence[str]) -> Tensor:
        """One gradient (P,) from the matrices (T, P) of `batches` parts of a batch (`several_batches`)."""
        raise NotImplementedError(
            f"{type(self).__name__} needs '{self.needs}' and does not read parts of a batch."
        )

    def see_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Take {task: loss averaged over processes}, before the batch's gradients, if `common_losses`."""

    def observe(self, losses: Mapping[str, Tensor], parts: int = 1) -> None:
        """Take {task: mean over processes} of a further pass (`extra_forward`, `held_out`, `bilevel`).

        Args:
            losses: of the same batch after the optimizer's update, or of held-out images. For `bilevel` the
                derivative of the held-out loss for each task's weight.
            parts: micro-batches whose mean the losses are; as many calls of `combine` came before.
        """

    def judge(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One scalar from the losses of held-out images, which weights are to lower (`bilevel`)."""
        raise NotImplementedError(f"{type(self).__name__} needs '{self.needs}' and does not judge losses.")

    def own_weights(self) -> dict[str, Tensor]:
        """{task: factor} of the gradients of parameters that serve a single task; 1 where it is absent."""
        return {}

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

    def require_all(self, tasks: Sequence[str], instead: str, owner: str = "") -> None:
        """Refuse a batch that lacks a task, for rules with state that depends on the set of tasks.

        Args:
            tasks: present in the batch.
            instead: rules to use on partially labelled data.
            owner: name of the rule, by default that of the class.

        Raises:
            ValueError: names the rule and the tasks.
        """
        if tuple(tasks) != self.tasks:
            raise ValueError(
                f"{owner or type(self).__name__} keeps state for every task: it needs all of "
                f"{list(self.tasks)}, in this order, in every batch, but got {list(tasks)}. Use {instead} on "
                "partially labelled data."
            )


class RememberingBalancer(Balancer):
    """Base of balancers whose state is plain data or tensors made on the first call.

    Such state cannot be buffers: a fresh balancer has none yet, which `load_state_dict` would refuse.

    Attributes:
        memory: {name: tensor, number, or list or dict of those}, saved with the checkpoint.
    """

    def __init__(self, *, tasks: Sequence[str], default_weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.memory: dict[str, Any] = {}

    def get_extra_state(self) -> dict[str, Any]:
        """A copy of `memory` (part of `state_dict`)."""
        return {"rule": type(self).__name__, "memory": copied(self.memory)}

    def set_extra_state(self, state: Any) -> None:
        """Counterpart of `get_extra_state`.

        Raises:
            ValueError: it was saved by another rule.
        """
        if state["rule"] != type(self).__name__:
            raise ValueError(
                f"balancer: the checkpoint holds the state of {state['rule']}, the config asks for "
                f"{type(self).__name__}. Start from the network's weights alone or keep the balancer."
            )
        self.memory = copied(state["memory"])


def copied(value: Any) -> Any:
    """Plain data with copies of its tensors."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def all_finite(losses: Mapping[str, Tensor]) -> bool:
    """Whether every loss is finite; a rule must not remember others."""
    return bool(torch.stack([item.detach() for item in losses.values()]).isfinite().all())


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
