"""Means over processes that travel during a backward pass.

Every process begins the same exchanges in the same order, whatever it is ready with. A task without labels on
a process counts as zeros there, which are ready at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtvision.steps.problem import StepProblem

BUCKET = 2**22
"""Numbers of a gradient that travel together: 16 MiB in float32."""


class RowExchange:
    """Means of one row per task, begun in the order of the tasks as soon as rows are complete.

    Args:
        problem: of the step.
        tasks: whose rows they are.
        here: losses of this process; rows of other tasks are complete.
        row: number of a task to its row, when it is sent.
        apart: a row is sent alone, as soon as it and those before it are complete; else all are sent
            together. All processes must agree on that.
        reuse: rows may become their means.
    """

    def __init__(
        self,
        problem: StepProblem,
        tasks: Sequence[str],
        here: Collection[str],
        row: Callable[[int], Tensor],
        *,
        apart: bool,
        reuse: bool,
    ) -> None:
        self._problem, self._tasks, self._row = problem, tasks, row
        self._apart, self._reuse = apart, reuse
        self._waiting = set(here)
        self._begun = 0
        self._travelling: list[Callable[[], list[Tensor]]] = []

    def complete(self, name: str) -> None:
        """The row of a loss is complete; losses that have none may be named, too."""
        self._waiting.discard(name)
        if self._apart:
            self._begin_complete()

    def close(self) -> None:
        """All rows are complete."""
        self._waiting.clear()
        self._begin_complete()

    def _begin_complete(self) -> None:
        while self._begun < len(self._tasks) and self._tasks[self._begun] not in self._waiting:
            self._begin(self._begun + 1 if self._apart else len(self._tasks))

    def _begin(self, end: int) -> None:
        rows = [self._row(number) for number in range(self._begun, end)]
        self._travelling.append(self._problem.averaging(rows, reuse=self._reuse))
        self._begun = end

    def means(self) -> list[Tensor]:
        """Wait for the means of all rows, in order; they are not kept."""
        self.close()
        travelling, self._travelling = self._travelling, []
        return [row for wait in travelling for row in wait()]


class GradientExchange:
    """Means of the gradients that one backward pass adds to `.grad`, in buckets from the last parameter on.

    Args:
        problem: of the step.
        targets: parameters, whose `.grad` is None before the pass and is taken away.
        factors: of their gradients.
    """

    def __init__(
        self, problem: StepProblem, targets: Sequence[nn.Parameter], factors: Sequence[float]
    ) -> None:
        self._problem, self._targets, self._factors = problem, targets, factors
        self._buckets: list[list[int]] = []
        filled = BUCKET
        for place in reversed(range(len(targets))):
            if filled + targets[place].numel() > BUCKET:
                self._buckets.append([])
                filled = 0
            self._buckets[-1].append(place)
            filled += targets[place].numel()
        self._missing = [set(bucket) for bucket in self._buckets]
        self._travelling: list[Callable[[], list[Tensor]]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Begin the mean of a bucket when its gradients are there; the backward pass is inside."""
        handles = []
        for number, bucket in enumerate(self._buckets):
            for place in bucket:
                item = self._targets[place]

                def arrived(_: Tensor, number: int = number, place: int = place) -> None:
                    self._missing[number].discard(place)
                    while len(self._travelling) < len(self._buckets) and not self._missing[self._next]:
                        self._begin()

                handles.append(item.register_post_accumulate_grad_hook(arrived))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def _next(self) -> int:
        return len(self._travelling)

    def _begin(self) -> None:
        rows = []
        for place in self._buckets[self._next]:
            item = self._targets[place]
            gradient = torch.zeros_like(item) if item.grad is None else item.grad
            item.grad = None
            rows.append(gradient if self._factors[place] == 1 else gradient.mul_(self._factors[place]))
        self._travelling.append(self._problem.averaging(rows))

    def means(self) -> list[Tensor]:
        """Begin the other buckets, with zeros for gradients that did not come, and wait for all."""
        while self._next < len(self._buckets):
            self._begin()
        found: dict[int, Tensor] = {}
        for bucket, wait in zip(self._buckets, self._travelling, strict=True):
            found |= dict(zip(bucket, wait(), strict=True))
        return [found[place] for place in range(len(self._targets))]
