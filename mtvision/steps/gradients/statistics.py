"""Further forward passes that leave running statistics of norms alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtvision.steps.problem import StepProblem


@contextmanager
def kept_buffers(problem: StepProblem) -> Iterator[None]:
    """Put the network's buffers back as they were before the block."""
    before = [(buffer, buffer.clone()) for _, buffer in problem.buffers]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
