"""A call whose activations the backward pass computes again (Chen et al., arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mtvision.core.context import Context, average_in_force, current_context, means_over, use_context


def computed_again(run: Callable[..., Any], module: object, *arguments: Any, **options: Any) -> Any:
    """`run(*arguments, **options)`, computed again in the backward pass.

    The second time it sees the context and the random numbers of the first, and moves no running statistics.

    Args:
        run: what is called.
        module: that contains its batch norms, if it is one.
        arguments: of the call.
        options: of the call.
    """
    if torch.compiler.is_compiling():  # the compiler knows what changes a buffer, and does it once
        return checkpoint(run, *arguments, use_reentrant=False, **options)
    again = partial(_second_time, module, current_context(), average_in_force())

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), again()

    return checkpoint(run, *arguments, use_reentrant=False, context_fn=contexts, **options)


@contextmanager
def _second_time(module: object, context: Context, average: Any) -> Iterator[None]:
    """The context of the first computation, and batch norms whose statistics stay."""
    layers = module.modules() if isinstance(module, nn.Module) else ()
    norms = [item for item in layers if isinstance(item, _BatchNorm) and item.training]
    before = [item.momentum for item in norms]
    counters = [item.num_batches_tracked for item in norms if item.num_batches_tracked is not None]
    counts = [item.clone() for item in counters]
    for item in norms:
        item.momentum = 0.0
    try:
        with use_context(context), means_over(average):
            yield
    finally:
        for item, momentum in zip(norms, before, strict=True):
            item.momentum = momentum
        for counter, count in zip(counters, counts, strict=True):
            counter.data.copy_(count)  # `data`: autograd keeps buffers and must not see the change
