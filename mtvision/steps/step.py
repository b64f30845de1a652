"""The contract of a step: a procedure from one batch to gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from mtvision.balance.balancer import Balancer
from mtvision.core.sample import Batch
from mtvision.steps.problem import LossReport, StepProblem


class Step(ABC):
    """Base of all steps.

    Attributes:
        divides_batches: whether `StepProblem.forward` is given parts of the batch that the step makes itself.
            Losses are then means over the labels of one process (`training.loss_means`).
        held_out: share of the training images, by id, that this step does not train the weights on. None for
            steps that train on all images.
    """

    held_out: float | None = None
    divides_batches: bool = False

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Whether this step averages network gradients over processes by itself.

        Then `StepProblem.forward` must not go through data-parallel hooks. Otherwise those hooks average what
        `StepProblem.backward` computes.
        """
        return balancer.needs == "jacobian"

    @abstractmethod
    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of one batch to `.grad` and return scalars for logs, of this process.

        `loss/<task>`, `auxiliary/<name>`, `weight/<task>` where the balancer has weights, and `total`.

        Raises:
            ValueError: the batch has no label of any task.
        """


def summary(report: LossReport, weights: Mapping[str, Tensor], total: Tensor) -> dict[str, Tensor]:
    """The scalars that steps return, detached."""
    logs = {f"loss/{name}": loss for name, loss in report.losses.items()}
    logs |= {f"auxiliary/{name}": loss for name, loss in report.auxiliary.items()}
    logs |= {f"weight/{name}": weight for name, weight in weights.items() if name in report.losses}
    return {name: value.detach() for name, value in (logs | {"total": total}).items()}


def add_to_grad(parameter: torch.nn.Parameter, gradient: Tensor) -> None:
    """`parameter.grad += gradient`; the tensor given is not kept."""
    if parameter.grad is None:
        parameter.grad = gradient.to(parameter.dtype, copy=True).view_as(parameter)
    else:
        parameter.grad.add_(gradient.view_as(parameter))


def refuse_empty(batch: Batch) -> ValueError:
    """The error for a batch without any label."""
    return ValueError(
        f"batch of {', '.join(batch.ids)}: no label of any task. Leave such images out of the data set, "
        "or raise the batch size."
    )
