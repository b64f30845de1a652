"""Base of all losses: precision, shape checks, and exclusion of pixels without a label.

A loss is a sum over pixels divided by counts of labels. The counts are apart from the formula. They may be
those of a larger batch: of all processes, of all its parts. Sums divided by the same counts add up to the
loss of that batch.

A pixel without a label is replaced in logits and label *before* any arithmetic, by values whose loss is 0.
Multiplying by a mask afterwards would not do: `NaN * 0` and `inf * 0` are NaN, in the backward pass too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from mtvision.core.task import IGNORE, Task


class Loss(ABC):
    """Base of all losses: checks shapes, leaves autocast, computes in float32 (float64 stays float64).

    Without a valid pixel in the batch, a loss is an exact 0 with the graph of the logits. A step can
    therefore treat every batch alike.

    A loss of one's own gives `compute`, and `counts` where it divides by more than the labelled pixels:

    >>> class SquaredError(Loss):
    ...     def compute(self, logits, label, counts):
    ...         (error,) = keep(~label.isnan(), logits - label)
    ...         return error.square().sum() / at_least_one(counts[0])
    >>> logits, label = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    >>> loss = SquaredError()
    >>> loss(logits, label)
    tensor(1.)
    >>> loss(logits[:1], label[:1], loss.counts(label))  # the share of the first sample
    tensor(0.5000)
    """

    logits_channels: ClassVar[int | None] = None
    """Channels the logits must have; None accepts any number."""
    label_axes: ClassVar[int] = 4
    """4: real-valued label (B, C, H, W), NaN = none. 3: class ids (B, H, W), 255 = none."""

    def __call__(self, logits: Tensor, label: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scalar loss of logits (B, C, H, W).

        Args:
            logits: of the network.
            label: (B, H, W) of class ids or (B, C, H, W) of values.
            counts: (K,) `counts` of a larger batch that this one is a part of; None = of `label`. Then the
                losses of all parts add up to the loss of the larger batch.

        Raises:
            ValueError: logits and label do not fit together.
        """
        self._check(logits, label)
        # Half precision overflows in sums over 10^5 pixels; autocast would undo the conversion below.
        with torch.autocast(logits.device.type, enabled=False):
            real = as_real(logits)
            divisors = self.counts(label) if counts is None else counts
            return self.compute(real, label, divisors.to(real))

    def counts(self, label: Tensor) -> Tensor:
        """Sums over the labels that `compute` divides by, (K,) float64; the first is 0 without a label.

        They add up over samples. By default K = 1: the number of labelled values (pixels of class maps).
        """
        return stacked_counts(labelled(label).sum())

    def check_task(self, task: Task) -> None:  # noqa: B027  most losses have nothing to check
        """Refuse a task that the loss's options do not fit; by default every task is accepted.

        Args:
            task: the one whose labels the loss will get.

        Raises:
            ValueError: the message names the option and the task.
        """

    @abstractmethod
    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """The formula, on checked tensors with at least float32 logits and counts of their type."""

    def _check(self, logits: Tensor, label: Tensor) -> None:
        name = type(self).__name__
        if logits.ndim != 4 or (self.logits_channels or logits.shape[1]) != logits.shape[1]:
            channels = self.logits_channels or "C"
            raise ValueError(
                f"{name}: logits have shape {tuple(logits.shape)}, expected (B, {channels}, H, W). "
                "Check out_channels of the task and its head."
            )
        if label.ndim != self.label_axes:
            expected = "(B, H, W) of class ids" if self.label_axes == 3 else "(B, C, H, W) of values"
            raise ValueError(f"{name}: label has shape {tuple(label.shape)}, expected {expected}.")
        if label.shape[0] != logits.shape[0] or label.shape[-2:] != logits.shape[-2:]:
            raise ValueError(
                f"{name}: logits have shape {tuple(logits.shape)} but the label has {tuple(label.shape)}. "
                "Resize the logits to the label's resolution before the loss."
            )

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


def as_real(tensor: Tensor) -> Tensor:
    """float32, or float64 if it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def labelled(label: Tensor) -> Tensor:
    """Where a label is: not NaN in maps of values, not 255 in maps of ids; bool of the same shape."""
    return ~label.isnan() if label.is_floating_point() else label != IGNORE


def stacked_counts(*counts: Tensor) -> Tensor:
    """(K,) float64 from K scalars; whole numbers stay exact up to 2^53."""
    return torch.stack([count.double() for count in counts])


def keep(valid: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor with 0 wherever `valid` (broadcastable) is False; no gradient flows there."""
    return tuple(torch.where(valid, tensor, 0) for tensor in tensors)


def at_least_one(count: Tensor) -> Tensor:
    """A number of pixels as divisor: max(count, 1)."""
    return count.clamp(min=1)


def pixels_of_labelled_samples(valid: Tensor) -> Tensor:
    """Number of all pixels, valid or not, of the samples (first axis) that have a valid one.

    The divisor of losses published as a mean "over all pixels". Their data has a label everywhere, so the
    papers do not say what happens without one. A sample without a label of the task is not counted, so that
    it does not dilute the others.
    """
    labelled = valid.flatten(1).any(dim=1).sum()
    return labelled * valid[0].numel()
