"""Training with weights that are learnt from held-out images by looking one step ahead."""

from __future__ import annotations

import torch
from torch import Tensor

from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Rate, Share
from mtvision.steps.gradients.perturbed import Moves, gradient_of, moved
from mtvision.steps.gradients.scalar import combined, means_over_processes
from mtvision.steps.gradients.statistics import kept_buffers
from mtvision.steps.gradients.sums import somewhere
from mtvision.steps.held_out import HeldOutStep
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import refuse_empty

_LENGTH = 0.01
"""Of the moves that slopes are measured over, as in the authors' code."""


@STEPS.register_module()
class BilevelStep(HeldOutStep):
    """Auto-Lambda (arXiv 2202.03091, section 4): weights descend a held-out loss, then the batch is trained.

    1. θ' = θ − α ∇L(θ) with the loss L of the balancer on the images that are not held out.
    2. d = gradient of the held-out loss at θ'. The balancer says which losses count (`judge`).
    3. The derivative of the held-out loss for the weight of task t is −α ⟨∇L_t(θ), d⟩. As in the authors'
       code it is measured by (L_t(θ + ε d) − L_t(θ − ε d)) / 2ε with ε = 0.01 / ‖d‖, for all tasks in two
       passes.
    4. The balancer changes its weights (`observe`), and the batch is trained with them.

    All passes but the last leave running statistics of norms alone. The cost is two more passes with
    gradients and two without. The authors' α is the learning rate and their θ' contains momentum and weight
    decay. Here α is an option and θ' a plain step of gradient descent.

    A batch in which no process has both kinds of images is trained without a change of weights.

    Args:
        held_out: share of the training images.
        look_ahead: α.
    """

    serves = frozenset({"bilevel"})

    def __init__(self, held_out: Share = 0.1, look_ahead: Rate = 1e-3) -> None:
        super().__init__(held_out=held_out)
        self.look_ahead = look_ahead

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`. Slopes are logged as `slope/<task>`."""
        self.check_balancer(problem.balancer)
        self.calls += 1
        held, rest = self.parted(batch)
        if not somewhere(problem, bool(batch.labels)):
            raise refuse_empty(batch)
        logs: dict[str, Tensor] = {}
        if somewhere(problem, bool(held.labels)) and somewhere(problem, bool(rest.labels)):
            slopes = self._slopes(problem, held, rest)
            problem.balancer.observe(slopes)
            logs = {f"slope/{name}": value for name, value in slopes.items()}
        logs |= self.train_on(problem, rest)
        logs.setdefault("total", torch.zeros((), device=batch.image.device))
        return logs

    def _slopes(self, problem: StepProblem, held: Batch, rest: Batch) -> dict[str, Tensor]:
        """{task: derivative of the held-out loss for its weight}, over all processes."""
        parameters = [item for _, item in problem.parameters]
        step = _gradient(problem, rest, judged=False)
        ahead = {index: -self.look_ahead * item for index, item in step.items()}
        with moved(parameters, ahead):
            direction = _gradient(problem, held, judged=True)
        length = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(item) for item in direction.values()])
        )
        epsilon = float(_LENGTH / length.clamp(min=1e-12))
        values = []
        for sign in (epsilon, -epsilon):
            moves = {index: sign * item for index, item in direction.items()}
            with torch.no_grad(), moved(parameters, moves), kept_buffers(problem):
                losses = problem.forward(rest).losses if rest.labels else {}
            values.append(means_over_processes(problem, losses))
        plus, minus = values
        return {name: -self.look_ahead * (plus[name] - minus[name]) / (2 * epsilon) for name in plus}


def _gradient(problem: StepProblem, batch: Batch, *, judged: bool) -> Moves:
    """{index: gradient} of the balancer's loss of a batch, mean over processes; `.grad` stays as it is."""
    trained = [index for index, (_, item) in enumerate(problem.parameters) if item.requires_grad]

    def total(report: LossReport) -> Tensor | None:
        if judged:
            return problem.balancer.judge(report.losses) if report.losses else None
        given = report.losses or problem.balancer.common_losses
        return combined(problem, report.losses) if given else None

    return gradient_of(problem, batch, trained, total)
