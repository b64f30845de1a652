"""Means over a batch that lies on several processes.

A layer that computes a regulariser from statistics of the batch sees the samples of one process. What it
takes the mean of goes through `batch_mean`. Where a run asks for means over all processes, the engine puts
the way to get them in force. Elsewhere nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

Average = Callable[[list[Tensor]], list[Tensor]]

_average: ContextVar[Average | None] = ContextVar("mtvision_batch_means", default=None)


def batch_mean(mean: Tensor) -> Tensor:
    """The mean over all processes of a mean over the samples of this one; same shape, same graph.

    Gradients that are averaged over processes are then those of a function of the whole batch's mean. All
    processes must call this equally often.

    >>> import torch
    >>> batch_mean(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    average = _average.get()
    if average is None:
        return mean
    (whole,) = average([mean.detach()])
    return mean + (whole - mean.detach())


@contextmanager
def means_over(average: Average | None) -> Iterator[None]:
    """Let `batch_mean` use `average`, a mean over processes; None = the samples of this process."""
    token = _average.set(average)
    try:
        yield
    finally:
        _average.reset(token)
