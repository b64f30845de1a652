"""What a merger learns from: held-out images and a network that takes any weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.merge.states import MergeError, Parents, State

Predict = Callable[[State, Batch, Sequence[str]], Mapping[str, Tensor]]
"""(state, batch, names of tasks) to {task: logits (B, C, H, W) of the labels' size}."""


@dataclass(frozen=True, kw_only=True)
class MergeProblem:
    """Images, tasks and predictions for mergers that learn.

    Args:
        tasks: of the network; each has a parent of its name.
        predict: differentiable in the tensors of the state. Tensors that a state lacks are those of `own`.
        batches: a new pass over held-out images, on `device`, always in the same order.
        own: {task: {name: tensor}} of what one task alone uses, from its own parent.
        device: on which mergers compute.
        record: facts that mergers add, plain data for the checkpoint.
    """

    tasks: Sequence[Task]
    predict: Predict
    batches: Callable[[], Iterable[Batch]]
    own: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    record: dict[str, Any] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """The task of a name that `tasks` has."""
        return next(task for task in self.tasks if task.name == name)

    def check_parents(self, parents: Parents) -> None:
        """Refuse parents that are not one per task.

        Raises:
            MergeError: names both.
        """
        names = [task.name for task in self.tasks]
        if sorted(parents) != sorted(names):
            raise MergeError(
                f"learned mergers need one parent per task: parents are {', '.join(sorted(parents))}, tasks "
                f"are {', '.join(sorted(names))}."
            )

    def endless(self) -> Iterator[Batch]:
        """Batches, pass after pass.

        Raises:
            MergeError: a pass has no batch.
        """
        while True:
            batch = None
            for batch in self.batches():
                yield batch
            if batch is None:
                raise MergeError("no held-out image to learn from; hold out a larger share.")
