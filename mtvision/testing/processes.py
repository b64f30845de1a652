"""Several processes of a run, played one at a time in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass
class Group:
    """What `StepProblem.average` and `StepProblem.gather` are given in a pretended group of processes.

    One member runs at a time. It hands over where it waits for the others. So the global random generator
    and other global state belong to one member between two meetings.

    Args:
        size: number of members.
    """

    size: int
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _given: list[Any] = field(default_factory=list)
    _results: list[Any] = field(default_factory=list)
    _meeting: int = 0
    _failed: bool = False

    def average(self, tensors: list[Tensor]) -> list[Tensor]:
        """Mean over members of each tensor."""
        # Copies: who goes on first may write into its tensors before the others have read them.
        everyone = self._meet([tensor.clone() for tensor in tensors])
        return [torch.stack(list(items)).mean(dim=0) for items in zip(*everyone, strict=True)]

    def gather(self, value: Any) -> list[Any]:
        """What every member gave."""
        return list(self._meet(value))

    def run(self, members: Sequence[Callable[[], T]]) -> list[T]:
        """Run all members; results in their order.

        Raises:
            Exception: what the first member that failed raised.
        """
        results: dict[int, T] = {}
        errors: list[BaseException] = []
        threads = [
            threading.Thread(target=self._one, args=(index, member, results, errors), daemon=True)
            for index, member in enumerate(members)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[index] for index in range(len(members))]

    def _one(
        self, index: int, member: Callable[[], T], results: dict[int, T], errors: list[BaseException]
    ) -> None:
        with self._condition:
            try:
                results[index] = member()
            except Exception as error:  # raised again in the thread that called `run`
                errors.append(error)
                self._failed = True
            self._condition.notify_all()

    def _meet(self, value: Any) -> list[Any]:
        meeting = self._meeting
        self._given.append(value)
        if len(self._given) == self.size:
            self._results, self._given, self._meeting = self._given, [], meeting + 1
            self._condition.notify_all()
        else:
            self._condition.wait_for(lambda: self._meeting > meeting or self._failed)
            if self._meeting == meeting:
                raise RuntimeError("another member of the group failed before this meeting.")
        return self._results
