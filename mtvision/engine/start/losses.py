"""Losses of the tasks before the first step, without a trace in the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtvision.core.sample import Batch, Sample, collate
from mtvision.data.check import Finding
from mtvision.data.dataset import DenseDataset
from mtvision.engine.module import TrainingModule
from mtvision.engine.run_dir.random_states import random_states, set_random_states
from mtvision.losses.loss import labelled
from mtvision.losses.task_losses import check_finite
from mtvision.models.dry_run import in_mode
from mtvision.runtime.precision import Precision, autocast

AT_MOST = 8
"""Images of the first batch that are tried until every task has a label with two values."""
FEW = 2
"""Images through the network, where these show all tasks."""
MOST = 0.9
"""Share of the sum of losses above which the other tasks hardly count."""


@dataclass(frozen=True)
class LossAtStart:
    """The loss of a task before the first step.

    Args:
        loss: as the balancer gets it.
        weight: of the balancer at the start; 1 where it has none yet.
        share: of the weighted sum over tasks; None where that is no positive number.
        telling: whether the labels had two values at least.
    """

    loss: float
    weight: float
    share: float | None
    telling: bool


@contextmanager
def untouched_states() -> Iterator[None]:
    """Random states are as before after the block."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Random states and buffers are as before after the block, running means of norms included."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        with untouched_states():
            yield
    finally:
        for name, buffer in module.named_buffers():
            if name in buffers and buffer.shape == buffers[name].shape:
                buffer.copy_(buffers[name])


def first_images(dataset: DenseDataset, batch_size: int, seed: int) -> Batch:
    """A few images of the first batch that training on one process would get, transformed as there."""
    keys = next(iter(dataset.batch_sampler(batch_size, seed=seed)))
    chosen: list[Sample] = []
    told: set[str] = set()
    for key in keys[:AT_MOST]:
        sample = dataset[key]
        telling = {name for name, label in sample.labels.items() if _telling(label)}
        if len(chosen) < FEW or telling - told:
            chosen.append(sample)
            told |= telling
        if len(chosen) >= FEW and told >= set(dataset.tasks):
            break
    return collate(chosen)


@torch.no_grad()
def losses_at_start(
    module: TrainingModule, batch: Batch, precision: Precision, *, skip: bool = False
) -> dict[str, LossAtStart]:
    """Losses of the tasks that have a label in a batch.

    Dropout is off. Norms use the batch as in training.

    Args:
        module: freshly built.
        batch: moved to the module's device.
        precision: of the forward pass.
        skip: steps whose losses are not finite are left out by the run.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite and `skip` is not set; names the samples.
    """
    batch = batch.to(module.device)
    with untouched(module), in_mode(module.network, training=True), autocast(precision, module.device):
        losses = module(batch).losses
    if not skip:
        check_finite(losses, batch)
    weights = {name: float(value) for name, value in module.balancer.weights().items()}
    values = {name: float(loss) for name, loss in losses.items()}
    parts = {name: weights.get(name, 1.0) * value for name, value in values.items()}
    whole = sum(parts.values())
    return {
        name: LossAtStart(
            loss=value,
            weight=weights.get(name, 1.0),
            share=parts[name] / whole if 0 < whole < float("inf") else None,
            telling=any(_telling(label) for label in batch.labels[name]),
        )
        for name, value in values.items()
    }


def judge_losses(
    losses: Mapping[str, LossAtStart], tasks: Sequence[str], *, own: bool, weighs: bool
) -> list[Finding]:
    """Losses with which training cannot be right, and those that drown the others.

    Args:
        losses: of the tasks with a label.
        tasks: all of them.
        own: whether `training.init_from_data` may be used.
        weighs: whether the gradient is that of a weighted sum of losses.
    """
    found = [
        Finding("warning", f"loss {name}", "no image of the first batch that was read has a label of it.")
        for name in tasks
        if name not in losses
    ]
    for name, item in losses.items():
        if item.loss == 0:
            where = "although its labels differ" if item.telling else "on images that show one value of it"
            found.append(
                Finding("error" if item.telling else "warning", f"loss {name}",
                        f"0 before the first step, {where}: nothing is learned from them. Look at its "
                        "labels, and at training.loss_options.")
            )  # fmt: skip
        if weighs and len(losses) > 1 and item.share is not None and item.share > MOST:
            remedy = "Give it a smaller weight in the balancer or in loss_weights of the protocol"
            if own:
                remedy += ", or set training.init_from_data=True"
            found.append(
                Finding("warning", f"loss {name}", f"{item.share:.0%} of the sum of all losses before the "
                        f"first step, so that the other tasks hardly count. {remedy}.")
            )  # fmt: skip
    return found


def _telling(label: Tensor) -> bool:
    known = label[labelled(label)]
    return bool(len(known)) and bool(known.min() != known.max())
