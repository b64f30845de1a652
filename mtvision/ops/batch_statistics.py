"""Statistics of batch norms, collected anew after weights have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchStatistics:
    """Mean over batches of their mean and (unbiased) variance per channel, in float64.

    >>> found = BatchStatistics()
    >>> found.add(torch.tensor([[[[0.0, 2.0]]]]))
    >>> [item.tolist() for item in found.mean() or ()]
    [[1.0], [2.0]]
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, x: Tensor) -> None:
        """Count a batch (B, C, ...)."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        var, mean = torch.var_mean(x.double(), dim=axes)
        self._parts.append((mean, var))

    def mean(self) -> tuple[Tensor, Tensor] | None:
        """(C,) means and variances; None before the first batch."""
        if not self._parts:
            return None
        means, variances = zip(*self._parts, strict=True)
        return torch.stack(means).mean(dim=0), torch.stack(variances).mean(dim=0)


def norms_of(network: nn.Module) -> list[_BatchNorm]:
    """Batch norms with running statistics, in the order of modules."""
    return [item for item in network.modules() if isinstance(item, _BatchNorm) and item.track_running_stats]


@torch.no_grad()
def collect(
    norms: Sequence[nn.Module], batches: Iterable[Any], run: Callable[[Any], object]
) -> list[BatchStatistics]:
    """What batch norms receive while some batches pass: the one loop of every recalibration.

    The caller makes the norms normalise by the batch meanwhile.

    Args:
        norms: whose inputs (B, C, ...) are counted.
        batches: a few of training size; use no test images.
        run: passes one batch through the network.

    Returns:
        One item per norm.

    Raises:
        ValueError: there is no batch.
    """
    found = [BatchStatistics() for _ in norms]
    hooks = [
        norm.register_forward_pre_hook(lambda _, given, item=item: item.add(given[0]))
        for norm, item in zip(norms, found, strict=True)
    ]
    count = 0
    try:
        for batch in batches:
            run(batch)
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise ValueError("recalibration of batch norms needs at least one batch of images, got none.")
    return found


def recalibrate(network: nn.Module, batches: Iterable[Any], run: Callable[[Any], object]) -> int:
    """Replace the running statistics of all batch norms by those of some batches.

    Every norm normalises by the batch meanwhile; everything else is in evaluation mode. Means over batches
    are kept, so that their order does not matter. Norms that do not run keep their statistics.

    Args:
        network: changed in place; its mode is restored.
        batches: a few of training size; use no test images.
        run: passes one batch through the network.

    Returns:
        How many norms have new statistics; 0 for a network without batch norm, which is not run.

    Raises:
        ValueError: there are batch norms but no batch.
    """
    norms = norms_of(network)
    if not norms:
        return 0
    modes = {item: item.training for item in network.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    try:
        network.eval()
        for norm in norms:
            norm.training, norm.momentum = True, 0.0  # 0: running statistics stay
        found = collect(norms, batches, run)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for item, mode in modes.items():
            item.training = mode
    return sum(_written(norm, item) for norm, item in zip(norms, found, strict=True))


@torch.no_grad()
def _written(norm: _BatchNorm, found: BatchStatistics) -> bool:
    values = found.mean()
    if values is None or norm.running_mean is None or norm.running_var is None:
        return False
    norm.running_mean.copy_(values[0])
    norm.running_var.copy_(values[1])
    return True
