"""Gradients for rules over gradients, which use the gradient of every task.

Over the tasks T present in the batch on any process:

1. Roles: a parameter that two or more losses reach is shared. One that a single loss reaches belongs to
   that task (`mtvision.steps.gradients.layout`).
2. Row t of the (T, P) matrix is the gradient of loss t with respect to the P shared numbers. Parameters of
   one task get the plain gradient of its loss, times the balancer's `own_weights`. Parameters with any other
   role get the sum over losses.
3. All of that is averaged over processes *before* the balancer uses it. Aggregation is not linear. An
   average of per-process aggregates would be another method, which depends on the number of processes.
   A process without labels of a task contributes zeros to its row, exactly as in plain training.
4. The balancer's result is added to `.grad` of the shared parameters, then the auxiliary losses'
   gradients.

A `gramian` balancer reads only the products G (T, T) of the rows. They are computed without the matrix
(`mtvision.steps.gradients.products`). One more backward pass through a part of the network gives the
gradient. A matrix of at most `SMALL` numbers is stored all the same, because that pass takes time.

The balancer gets gradients without loss scale and accumulation factor. Both are applied to its result, and to
gradients that it gives its own parameters. Thresholds and running averages inside balancers therefore keep
their meaning. Accumulated batches are aggregated one by one. Memory of the matrix: T·P + one gradient of the
network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.sample import Batch
from mtvision.steps.gradients.diagnostics import relations
from mtvision.steps.gradients.layout import (
    Layout,
    Layouts,
    add_flat,
    add_plain,
    common_dtype,
    factor_of,
    losses_of,
    trainable,
)
from mtvision.steps.gradients.matrix import DEVICE, Storage, check_squares, matrix_of_gradients
from mtvision.steps.gradients.products import Products
from mtvision.steps.gradients.scalar import means_over_processes
from mtvision.steps.gradients.weighted import Reuse, add_with_weights
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import add_to_grad, refuse_empty

SMALL = 2**24
"""Numbers of a matrix that costs little: 64 MiB in float32."""


class JacobianGradients:
    """The procedure of the module docstring; keeps the roles found for each set of tasks.

    Args:
        max_norm: clip the shared gradient of each task to this L2 norm before the balancer uses it.
        matrix: store the matrix for `gramian` balancers, too; None stores it if it is small.
        reuse: weights that serve several batches.
        storage: of the matrix.

    Attributes:
        seen: how the gradients of the last batch related, for logs, if `StepProblem.shows_gradients`.
    """

    def __init__(
        self,
        max_norm: float | None = None,
        *,
        matrix: bool | None = None,
        reuse: Reuse | None = None,
        storage: Storage = DEVICE,
    ) -> None:
        self._layouts = Layouts()
        self._products = Products()
        self._max_norm = max_norm
        self._matrix = matrix
        self._reuse = reuse
        self._storage = storage
        self.seen: dict[str, Tensor] = {}

    def __call__(
        self, problem: StepProblem, batch: Batch, report: LossReport
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add gradients to `.grad`; returns the plain sum of all losses and the balancer's weights, for logs.

        Raises:
            ValueError: no process has a label of any task, or weights cannot be reused.
            NonFiniteGradientError: a row of the matrix is NaN or infinite; all processes raise it.
        """
        self.seen = {}
        named = trainable(problem)
        losses = losses_of(problem, report)
        layout = self._layouts(problem, batch, named, losses)
        if not layout.tasks:
            raise refuse_empty(batch)
        parameters = [item for _, item in named]
        total = total_of(losses, parameters[0].device)
        if self._reuse is not None and layout.shared:
            known = self._reuse.next(layout.tasks)
            if known is not None:
                add_with_weights(problem, parameters, losses, layout, *known)
                return total, {name: total.new_tensor(weight) for name, weight in known[0].items()}
        if problem.balancer.needs == "gramian" and layout.shared and not self._stored(parameters, layout):
            weights = self._by_products(problem, parameters, report, losses, layout)
        else:
            weights = self._by_matrix(problem, parameters, report, losses, layout)
        if self._reuse is not None and layout.shared:
            gradients = [parameters[index].grad for index in layout.shared] if not weights else []
            zero = not any(bool(item.any()) for item in gradients if item is not None)
            self._reuse.remember(problem.balancer, layout.tasks, zero=zero)
        return total, weights

    def _stored(self, parameters: Sequence[nn.Parameter], layout: Layout) -> bool:
        """Whether the matrix is stored for a `gramian` balancer."""
        if self._matrix is not None:
            return self._matrix
        numbers = sum(parameters[index].numel() for index in layout.shared)
        return len(layout.tasks) * numbers <= SMALL

    def _by_products(
        self,
        problem: StepProblem,
        parameters: list[nn.Parameter],
        report: LossReport,
        losses: Mapping[str, Tensor],
        layout: Layout,
    ) -> dict[str, Tensor]:
        """Weights from G, then one backward pass of the weighted losses."""
        factor = factor_of(problem, parameters[0].device)
        measured = self._products(problem, parameters, losses, layout, factor)
        gramian = measured.gramian
        check_squares(gramian.diagonal(), layout.tasks)
        if problem.shows_gradients:
            self.seen = relations(gramian, layout.tasks)
        clips = torch.ones_like(gramian.diagonal())
        if self._max_norm is not None:
            clips = self._max_norm / gramian.diagonal().sqrt().clamp(min=self._max_norm)
            gramian = gramian * torch.outer(clips, clips)
        show_losses(problem, report, layout)
        with scaled_gradients(problem.balancer, factor):
            found = problem.balancer.weigh(gramian.to(common_dtype(parameters)), layout.tasks)
        measured.add_weighted(problem, parameters, layout, found.detach() * clips.to(found), factor)
        add_plain(parameters, layout, measured.plain, problem.balancer.own_weights())
        return problem.balancer.weights()

    def _by_matrix(
        self,
        problem: StepProblem,
        parameters: list[nn.Parameter],
        report: LossReport,
        losses: Mapping[str, Tensor],
        layout: Layout,
    ) -> dict[str, Tensor]:
        """The balancer's result on the matrix."""
        factor = factor_of(problem, parameters[0].device)
        jacobian, plain = matrix_of_gradients(problem, parameters, losses, layout, self._storage)
        weights: dict[str, Tensor] = {}
        own: dict[str, Tensor] = {}
        if layout.shared:
            jacobian = unscaled(jacobian, factor)
            if problem.shows_gradients:
                self.seen = relations((jacobian @ jacobian.T).double(), layout.tasks)
            jacobian = clipped(jacobian, self._max_norm)
            show_losses(problem, report, layout)
            with scaled_gradients(problem.balancer, factor):
                gradient = _aggregated(problem.balancer, jacobian, layout.tasks, parameters[0].device)
            weights, own = problem.balancer.weights(), problem.balancer.own_weights()
            add_flat(parameters, layout.shared, gradient, factor)
        add_plain(parameters, layout, plain, own)
        return weights


def _aggregated(balancer: Balancer, jacobian: Tensor, tasks: Sequence[str], device: torch.device) -> Tensor:
    """The balancer's result on the device, of a matrix that may be elsewhere.

    A rule that reads products alone gets them on the device, where its own parameters are.
    """
    if jacobian.device == device or balancer.needs != "gramian":
        return balancer.aggregate(jacobian, tasks).to(device)
    weights = balancer.weigh((jacobian @ jacobian.T).to(device), tasks)
    return (weights.detach().to(jacobian) @ jacobian).to(device)


def unscaled(jacobian: Tensor, factor: Tensor | None) -> Tensor:
    """The matrix without the factor of the losses, in place."""
    return jacobian if factor is None else jacobian.div_(factor)


def total_of(losses: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """Sum of all losses without a graph; 0 if there is none."""
    values = [loss.detach() for loss in losses.values()]
    return torch.stack(values).sum() if values else torch.zeros((), device=device)


def show_losses(problem: StepProblem, report: LossReport, layout: Layout) -> None:
    """Give the balancer the values of the losses, if it reads them."""
    if problem.balancer.common_losses:
        means = means_over_processes(problem, report.losses)
        problem.balancer.see_losses({name: means[name] for name in layout.tasks})


@contextmanager
def scaled_gradients(balancer: Balancer, factor: Tensor | None) -> Iterator[None]:
    """Multiply gradients that a balancer gives its own parameters inside the block, like all others."""
    learnt = [item for item in balancer.parameters() if item.requires_grad]
    earlier = [item.grad for item in learnt]
    for item in learnt:
        item.grad = None
    yield
    for item, before in zip(learnt, earlier, strict=True):
        fresh, item.grad = item.grad, before
        if fresh is not None:
            add_to_grad(item, fresh if factor is None else fresh * factor.to(fresh))


def clipped(jacobian: Tensor, max_norm: float | None) -> Tensor:
    """Rows whose L2 norm exceeds `max_norm` are scaled down to it."""
    if max_norm is None:
        return jacobian
    norms = torch.linalg.vector_norm(jacobian, dim=1, keepdim=True)
    factors: Tensor = max_norm / norms.clamp(min=max_norm)
    return jacobian * factors
