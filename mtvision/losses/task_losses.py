"""Compute one scalar loss per task from a network's output and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mtvision.core.naming import UnknownNameError
from mtvision.core.non_finite import NonFiniteError
from mtvision.core.output import NetworkOutput
from mtvision.core.registry import LOSSES
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.losses.loss import Loss, at_least_one

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""A registered loss that is no `Loss`: (logits, label) to the mean over the labelled values."""


class TaskLosses:
    """The losses that the tasks name, with deep supervision added to its task.

    Args:
        tasks: their `loss` configs are built once, here.

    Raises:
        ValueError: an option of a loss does not fit its task.

    >>> TaskLosses([depth()])(NetworkOutput(logits), batch)      # doctest: +SKIP
    {'depth': tensor(0.7, grad_fn=<DivBackward0>)}
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.losses: dict[str, Loss] = {task.name: _as_loss(LOSSES.build(task.loss)) for task in tasks}
        for task in tasks:
            self.losses[task.name].check_task(task)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """{task: (K,) counts of its labels} of the tasks that the batch has labels of, see `Loss.counts`."""
        return {
            name: loss.counts(batch.labels[name])
            for name, loss in self.losses.items()
            if name in batch.labels
        }

    def __call__(
        self, output: NetworkOutput, batch: Batch, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Scalar per task that has both logits and, in at least one sample, a label; in the tasks' order.

        The loss of a task is `loss(logits) + Σ weight · loss(auxiliary logits)` over its deep supervision.

        Args:
            output: of the network.
            batch: its labels.
            counts: what losses divide by; None = the counts of this batch.

        Raises:
            UnknownNameError: deep supervision of a task that has no loss.
            ValueError: logits and label differ in size; the message names the task.
        """
        for extra in output.auxiliary:
            if extra.task not in self.losses:
                raise UnknownNameError("task of deep supervision", extra.task, self.losses)
        totals = {}
        for name, loss in self.losses.items():
            if name not in output.logits or name not in batch.labels:
                continue
            label = batch.labels[name]
            divisors = loss.counts(label) if counts is None else counts[name]
            total = loss(_fitting(name, output.logits[name], label), label, divisors)
            for extra in output.auxiliary:
                if extra.task == name:
                    logits = _fitting(name, extra.logits, label)
                    total = total + extra.weight * loss(logits, label, divisors)
            totals[name] = total
        return totals


class _MeanLoss(Loss):
    """A function (logits, label) -> mean over the labelled values, with the counts of a `Loss`."""

    def __init__(self, function: LossFunction) -> None:
        self.function = function

    def __call__(self, logits: Tensor, label: Tensor, counts: Tensor | None = None) -> Tensor:
        """Mean over the labelled values that `counts` holds."""
        mean = self.function(logits, label)
        if counts is None:
            return mean
        return self.compute(mean, label, counts.to(mean))

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """The mean `logits`, times the share of `label` among the values that `counts` holds."""
        share = self.counts(label).to(logits)[0] / at_least_one(counts[0])
        return logits * share


def _as_loss(built: Any) -> Loss:
    return built if isinstance(built, Loss) else _MeanLoss(built)


def _fitting(name: str, logits: Tensor, label: Tensor) -> Tensor:
    if logits.shape[-2:] != label.shape[-2:] or logits.shape[0] != label.shape[0]:
        raise ValueError(
            f"{name}: logits have shape {tuple(logits.shape)} but the label has {tuple(label.shape)}. "
            "Ask the network for logits at label resolution: network.outputs(image, size=batch.label_size)."
        )
    return logits


class NonFiniteLossError(NonFiniteError):
    """A loss is NaN or infinite.

    Args:
        losses: {task: its value}, only the non-finite ones.
        ids: {task: ids of the samples that cause it, or of the whole batch if they cannot be identified}.
    """

    def __init__(self, losses: Mapping[str, float], ids: Mapping[str, Sequence[str]]) -> None:
        self.tasks = list(losses)
        self.ids = {name: list(ids[name]) for name in losses}
        lines = [
            f"loss of {name} is {value}; samples: {', '.join(self.ids[name])}."
            for name, value in losses.items()
        ]
        lines.append(
            "Look at these samples and their labels; then try a lower learning rate, gradient clipping, or "
            "bf16 or fp32 instead of fp16."
        )
        super().__init__("\n".join(lines))


def check_finite(losses: Mapping[str, Tensor], batch: Batch, output: NetworkOutput | None = None) -> None:
    """Stop if a loss is NaN or infinite; costs one synchronisation with the device.

    Args:
        losses: {task: scalar}.
        batch: where they come from.
        output: the network's output, optional. With it, the message names only the samples with non-finite
            logits or labels instead of the whole batch.

    Raises:
        NonFiniteLossError: names the tasks, their values and the sample ids.
    """
    if not losses:
        return
    values = dict(zip(losses, torch.stack([loss.detach().double() for loss in losses.values()]), strict=True))
    finite = torch.stack(list(values.values())).isfinite()
    if bool(finite.all()):
        return
    wrong = {name: float(value) for name, value in values.items() if not bool(value.isfinite())}
    raise NonFiniteLossError(wrong, {name: _blamed(name, batch, output) for name in wrong})


def _blamed(task: str, batch: Batch, output: NetworkOutput | None) -> list[str]:
    """Ids of labelled samples with a non-finite logit or an infinite label; all labelled ones if none has."""
    flags = batch.present.get(task)
    labelled = [True] * len(batch) if flags is None else cast("list[bool]", flags.tolist())
    bad = torch.zeros(len(batch), dtype=torch.bool)
    if task in batch.labels:
        bad |= batch.labels[task].isinf().flatten(1).any(dim=1).cpu()
    if output is not None:
        maps = [output.logits[task]] if task in output.logits else []
        maps += [extra.logits for extra in output.auxiliary if extra.task == task]
        for logits in maps:
            bad |= (~logits.detach().isfinite()).flatten(1).any(dim=1).cpu()
    at_fault = [
        name for name, has, wrong in zip(batch.ids, labelled, bad.tolist(), strict=True) if has and wrong
    ]
    return at_fault or [name for name, has in zip(batch.ids, labelled, strict=True) if has]
