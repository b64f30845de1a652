"""Run-time settings of a network, such as the current task or its widths, read by adapters and decoders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Average = Callable[[list[Tensor]], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Context:
    """Run-time state of a conditional network; an empty context is the plain network.

    Args:
        tasks: whose pyramids the decoder will read, None = all; set by the network.
        task: the task the backbone is computed for (task-conditioned backbones), None = shared.
        widths: plain data a slimmable adapter understands.
        preference: {task: weight >= 0}, how much each task matters to the user.
        branches: which branch each block takes for each task.
        temperature: of relaxed discrete choices.
        extra: anything a method of the user needs.

    >>> Context(preference={"depth": 2.0, "semseg": 1.0}).preference["depth"]
    2.0
    >>> Context() == Context(widths=None)
    True
    """

    tasks: tuple[str, ...] | None = None
    task: str | None = None
    widths: Mapping[str, Any] | None = None
    preference: Mapping[str, float] | None = None
    branches: Mapping[str, Any] | None = None
    temperature: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class _InThread(threading.local):
    """The context of each thread; `torch.compile` traces it, unlike the change of a `ContextVar`."""

    context = Context()


_current = _InThread()


def current_context() -> Context:
    """The context in force in this thread; an empty one outside `use_context`.

    >>> current_context() == Context()
    True
    """
    return _current.context


@contextmanager
def use_context(context: Context | None) -> Iterator[Context]:
    """Put `context` in force inside a `with` block; None leaves the current one. Nests.

    >>> with use_context(Context(temperature=0.5)):
    ...     current_context().temperature
    0.5
    """
    before = _current.context
    _current.context = before if context is None else context
    try:
        yield _current.context
    finally:
        _current.context = before


_average: ContextVar[Average | None] = ContextVar("mtvision_average", default=None)


@contextmanager
def means_over(average: Average | None) -> Iterator[None]:
    """Let `batch_mean` use `average` inside a `with` block; None = the samples of this process."""
    token = _average.set(average)
    try:
        yield
    finally:
        _average.reset(token)


def average_in_force() -> Average | None:
    """What `means_over` put in force, None outside of it."""
    return _average.get()


def batch_mean(mean: Tensor) -> Tensor:
    """The mean over all processes of a mean over the samples of this one; same shape, same graph.

    For layers that compute a regulariser from statistics of the batch. Where a run takes means over all
    processes (`training.loss_means`), gradients averaged over processes are then those of a function of the
    whole batch's mean. All processes must call this equally often. Elsewhere it changes nothing.

    >>> import torch
    >>> batch_mean(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    average = _average.get()
    if average is None:
        return mean
    (whole,) = average([mean.detach()])
    return mean + (whole - mean.detach())
