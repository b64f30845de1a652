"""Steps that seek flat regions of every task's loss: F-MTL and SAMO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Count, Rate, Share
from mtvision.steps.gradients.jacobian import scaled_gradients, show_losses, total_of, unscaled
from mtvision.steps.gradients.layout import (
    Layout,
    Layouts,
    add_flat,
    add_plain,
    factor_of,
    losses_of,
    trainable,
)
from mtvision.steps.gradients.matrix import check_rows, matrix_of_gradients
from mtvision.steps.gradients.perturbed import Moves, ascent, gradient_at, rows_of, slope_along
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, refuse_empty, summary


class _Pass:
    """The first pass over a batch: losses, layout and the gradients at the weights as they are."""

    def __init__(self, problem: StepProblem, batch: Batch, layouts: Layouts) -> None:
        self.problem, self.batch = problem, batch
        self.report: LossReport = problem.forward(batch)
        named = trainable(problem)
        self.parameters: list[nn.Parameter] = [item for _, item in named]
        self.losses = losses_of(problem, self.report)
        self.layout: Layout = layouts(problem, batch, named, self.losses)
        if not self.layout.tasks:
            raise refuse_empty(batch)
        self.factor = factor_of(problem, self.parameters[0].device)
        self.jacobian, self.plain = matrix_of_gradients(problem, self.parameters, self.losses, self.layout)
        self.jacobian = unscaled(self.jacobian, self.factor)

    def heads(self, name: str) -> dict[int, Tensor]:
        """{index: gradient} of the parameters of one task."""
        pairs = zip(self.layout.plain, self.plain, strict=True)
        return {item.index: part for item, part in pairs if item.owner == name}

    def at(self, moves: Mapping[str, Moves]) -> tuple[Tensor, list[Tensor]]:
        """Gradients of every task at weights moved for it: matrix (T, P), and the plain gradients.

        Parameters of a single task get their gradient at the moved weights, all others as in the first pass.
        """
        rows = []
        plain = list(self.plain)
        for name in self.layout.tasks:
            row, own = gradient_at(self.problem, self.batch, name, self.parameters, self.layout, moves[name])
            rows.append(row if self.factor is None else row / self.factor)
            for place, item in enumerate(self.layout.plain):
                if item.owner == name:
                    plain[place] = own[item.index]
        matrix = torch.stack(rows).to(self.jacobian)
        check_rows(matrix, self.layout.tasks)
        return matrix, plain

    def finish(self, matrices: Sequence[Tensor], plain: list[Tensor]) -> dict[str, Tensor]:
        """Add the sum of the balancer's results on each matrix, and the plain gradients; returns logs."""
        balancer, layout = self.problem.balancer, self.layout
        weights: dict[str, Tensor] = {}
        own: dict[str, Tensor] = {}
        if layout.shared:
            show_losses(self.problem, self.report, layout)
            results = []
            for index, matrix in enumerate(matrices):
                with scaled_gradients(balancer, self.factor):
                    results.append(balancer.aggregate(matrix, layout.tasks))
                if index == 0:
                    weights, own = balancer.weights(), balancer.own_weights()
            add_flat(self.parameters, layout.shared, torch.stack(results).sum(dim=0), self.factor)
        add_plain(self.parameters, layout, plain, own)
        return summary(self.report, weights, total_of(self.losses, self.parameters[0].device))


class _FlatStep(nn.Module, Step):
    """What both steps share."""

    serves = frozenset({"jacobian", "gramian"})
    divides_batches = True

    def __init__(self) -> None:
        super().__init__()
        self._layouts = Layouts()

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect one forward and one backward pass."""
        return True


@STEPS.register_module()
class FlatRegionsStep(_FlatStep):
    """F-MTL (Phan et al., "Seeking Task-based Flat Regions", section 4): SAM for each task.

    1. Gradients g_t as in `PlainStep`.
    2. For each task the shared weights move by ρ w² g_t / ‖|w| g_t‖ (adaptive SAM), its own weights likewise.
       A pass of this task alone gives g'_t. Running statistics of norms stay as they are.
    3. Shared gradient = A(g) + A(g' − g) with the balancer A. Parameters of one task get their g'.

    The cost is one more forward and backward pass per task. The balancer is asked twice per batch, so running
    averages in it mix gradients and differences. Rules without state are safe. The authors' MGDA is
    multiplied by the number of tasks: scale the learning rate accordingly.

    Args:
        rho: ρ, the length of the move; 2 in the paper on Cityscapes.
        adaptive: moves in proportion to the weights; False = ρ g/‖g‖.
    """

    def __init__(self, rho: Rate = 2.0, adaptive: bool = True) -> None:
        super().__init__()
        self.rho, self.adaptive = rho, adaptive

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`."""
        self.check_balancer(problem.balancer)
        first = _Pass(problem, batch, self._layouts)
        moves = {}
        for name, row in zip(first.layout.tasks, first.jacobian, strict=True):
            shared = rows_of(first.parameters, first.layout, row)
            moves[name] = {
                **ascent(first.parameters, shared, self.rho, adaptive=self.adaptive),
                **ascent(first.parameters, first.heads(name), self.rho, adaptive=self.adaptive),
            }
        matrix, plain = first.at(moves)
        return first.finish([first.jacobian, matrix - first.jacobian], plain)


@STEPS.register_module()
class SAMOStep(_FlatStep):
    """SAMO (Sharpness-Aware Multi-task Optimization): one direction for all tasks, corrected for each.

    1. ḡ = gradient of the mean loss. For each task z_t = ± a random direction, with the sign of the loss's
       slope along it, from two passes without gradients.
    2. Per tensor v_t = (1 − β) ḡ + β ‖ḡ‖ z_t/‖z_t‖. Shared weights move by ρ v_t/‖v_t‖, the task's own along
       their gradient.
    3. The balancer gets the gradients at the moved weights. Parameters of one task get theirs.

    The released code keeps the last update in ḡ from its second step on, because it never clears gradients.
    That is not done here. Its slopes are taken in evaluation mode; here the batch's own statistics are used.
    It multiplies the result by T and clips it to 1: set the learning rate and `training.clip_grad`.

    Args:
        rho: ρ, the length of the move.
        beta: β, share of the correction.
        epsilon: distance of the two passes.
        adaptive: moves in proportion to the weights.
        seed: of the directions, which are the same on all processes.
    """

    calls: Tensor

    def __init__(
        self,
        rho: Rate = 0.05,
        beta: Share = 0.1,
        epsilon: Rate = 0.01,
        adaptive: bool = False,
        seed: Count = 0,
    ) -> None:
        super().__init__()
        self.rho, self.beta, self.epsilon = rho, beta, epsilon
        self.adaptive, self.seed = adaptive, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`."""
        self.check_balancer(problem.balancer)
        self.calls += 1
        first = _Pass(problem, batch, self._layouts)
        mean = rows_of(first.parameters, first.layout, first.jacobian.mean(dim=0))
        moves = {}
        for number, name in enumerate(first.layout.tasks):
            guide = self._corrected(first, name, mean, number)
            moves[name] = {
                **ascent(first.parameters, guide, self.rho, adaptive=self.adaptive),
                **ascent(first.parameters, first.heads(name), self.rho, adaptive=self.adaptive),
            }
        matrix, plain = first.at(moves)
        return first.finish([matrix], plain)

    def _corrected(self, first: _Pass, name: str, mean: Moves, number: int) -> dict[int, Tensor]:
        """v_t of each shared parameter."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.calls)) * 1009 + number)
        direction = {
            index: torch.randn(item.shape, generator=generator).to(item) for index, item in mean.items()
        }
        slope = slope_along(first.problem, first.batch, name, first.parameters, direction, self.epsilon)
        guide = {}
        for index, item in mean.items():
            drawn = direction[index] * slope.sign()
            unit = drawn / torch.linalg.vector_norm(drawn).clamp(min=1e-12)
            guide[index] = (1 - self.beta) * item + self.beta * torch.linalg.vector_norm(item) * unit
        return guide
