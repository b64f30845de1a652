"""Input and result of a searcher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mtvision.core.context import Context
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.models.network import Network


@dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """A network and the means to judge its variants. The test split is not reachable from here.

    Args:
        network: with the weights of the checkpoint that is searched, in evaluation mode.
        tasks: of the network, in order; their `headline` metrics tell which direction is better.
        held_out: a new pass over the batches of the held-out slice of the training set, without augmentation.
        evaluate: headline score of every task on that slice, with a context in force.
        losses: mean loss of every task on that slice, unweighted, with a context in force.
        batch_losses: loss of every task on a batch, unweighted, with its graph.
        training: a new, endless pass over the training images that are not held out, augmented and shuffled.
        options: what the user asked for, e.g. `budget` and `preference`.
        others: further trained networks by name, for searches that compare single-task networks.
        held_out_images: number of images in the held-out slice.
        step_state: {name: value} of what the step of the training run left in the checkpoint, e.g. data maps.
    """

    network: Network
    tasks: tuple[Task, ...]
    held_out: Callable[[], Iterable[Batch]]
    evaluate: Callable[[Context | None], dict[str, float]]
    losses: Callable[[Context | None], dict[str, float]]
    batch_losses: Callable[[Batch], dict[str, Tensor]] | None = None
    training: Callable[[], Iterable[Batch]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Network] = field(default_factory=dict)
    held_out_images: int = 0
    step_state: Mapping[str, Any] = field(default_factory=dict)


class Searcher(ABC):
    """Base of all searchers, built from the section `search` of a config.

    Attributes:
        compares_single_tasks: needs one trained single-task network per task as `SearchProblem.others`, which
            are trained where none are given; `SearchProblem.network` then has the weights it starts with.

    >>> class WorstTask(Searcher):
    ...     def search(self, problem):
    ...         losses = problem.losses(None)
    ...         return {"kind": "worst_task", "task": max(losses, key=losses.get)}
    >>> WorstTask().compares_single_tasks
    False
    """

    compares_single_tasks: bool = False

    @abstractmethod
    def search(self, problem: SearchProblem) -> dict[str, Any]:
        """The architecture found, as plain data that JSON and a config can hold, with the log of the search.

        Raises:
            ValueError: nothing fits what was asked for; the message says what the smallest possible is.
        """
