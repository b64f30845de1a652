"""The contract of a step: a procedure from one batch to gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mtvision.balance.balancer import SERVED_BY, Balancer, Need
from mtvision.core.sample import Batch
from mtvision.steps.problem import LossReport, StepProblem


class Step(ABC):
    """Base of all steps.

    Attributes:
        divides_batches: whether `StepProblem.forward` is given parts of the batch that the step makes itself.
            Losses are then means over the labels of one process (`training.loss_means`).
        held_out: share of the training images, by id, that this step does not train the weights on. None for
            steps that train on all images.
        serves: what a balancer may need.

    >>> class Halved(Step):
    ...     def __call__(self, problem, batch):
    ...         report = problem.forward(batch)
    ...         total = problem.balancer.combine(report.losses) / 2
    ...         problem.backward(problem.scale(total))
    ...         return summary(report, {}, total)
    >>> sorted(Halved().serves)
    ['gramian', 'jacobian', 'scalar']
    """

    serves: frozenset[Need] = frozenset({"scalar", "jacobian", "gramian"})
    held_out: float | None = None
    divides_batches: bool = False

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Whether this step averages network gradients over processes by itself.

        Then `StepProblem.forward` must not go through data-parallel hooks. Otherwise those hooks average what
        `StepProblem.backward` computes.
        """
        return not balancer.combines

    def check_balancer(self, balancer: Balancer) -> None:
        """Refuse a balancer whose needs this step does not serve.

        Raises:
            ValueError: names both, and a step that serves it.
        """
        if balancer.needs not in self.serves:
            raise ValueError(
                f"{type(balancer).__name__} needs '{balancer.needs}', which {type(self).__name__} does not "
                f"serve (it serves {', '.join(sorted(self.serves))}). "
                f"Use step=dict(type='{SERVED_BY[balancer.needs]}')."
            )

    def updates(self, balancer: Balancer) -> int:
        """How many optimizer updates follow one another on the next batch; the engine asks once per batch."""
        return 1

    def follows_up(self, balancer: Balancer) -> bool:
        """Whether the engine calls `after_update` with this balancer."""
        return False

    def after_update(self, parts: Sequence[tuple[StepProblem, Batch]]) -> None:
        """Called after the optimizer has changed the weights, if `follows_up` says so.

        Args:
            parts: the problem and batch of each call since the last update.
        """
        raise NotImplementedError(f"{type(self).__name__} does not look at a batch twice.")

    @abstractmethod
    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of one batch to `.grad` and return scalars for logs, of this process.

        `loss/<task>`, `auxiliary/<name>`, `weight/<task>` where the balancer has weights, and `total`.

        Raises:
            ValueError: the batch has no label of any task.
        """


def in_rounds(step: Step, balancer: Balancer, update: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """All optimizer updates of one batch.

    Args:
        step: says how many.
        balancer: of the run.
        update: gradients of the whole batch and one update; returns logs.

    Returns:
        The logs of the first update, and what only later ones have. So losses are those before any update.
    """
    logs: dict[str, Tensor] = {}
    for _ in range(step.updates(balancer)):
        logs = update() | logs
    return logs


def summary(report: LossReport, weights: Mapping[str, Tensor], total: Tensor) -> dict[str, Tensor]:
    """The scalars that steps return, detached."""
    logs = {f"loss/{name}": loss for name, loss in report.losses.items()}
    logs |= {f"auxiliary/{name}": loss for name, loss in report.auxiliary.items()}
    logs |= {f"weight/{name}": weight for name, weight in weights.items() if name in report.losses}
    return {name: value.detach() for name, value in (logs | {"total": total}).items()}


def add_to_grad(parameter: torch.nn.Parameter, gradient: Tensor, *, keep: bool = False) -> None:
    """`parameter.grad += gradient`.

    Args:
        parameter: of any type.
        gradient: of as many elements.
        keep: the tensor given may become the gradient; it has no other use. Else it is copied.
    """
    if parameter.grad is None:
        parameter.grad = gradient.to(parameter.dtype, copy=not keep).view_as(parameter)
    else:
        parameter.grad.add_(gradient.view_as(parameter))


def refuse_empty(batch: Batch) -> ValueError:
    """The error for a batch without any label."""
    return ValueError(
        f"batch of {', '.join(batch.ids)}: no label of any task. Leave such images out of the data set, "
        "or raise the batch size."
    )
