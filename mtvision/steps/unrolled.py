"""Gradients for an architecture through one step of training of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from mtvision.core.roles import is_architecture
from mtvision.core.sample import Batch
from mtvision.steps.gradients.perturbed import gradient_of, moved
from mtvision.steps.problem import LossReport, StepProblem

LENGTH = 0.01
"""Of the moves that second derivatives are measured over, as in DARTS (Liu et al., ICLR 2019)."""


def total_of(report: LossReport) -> Tensor | None:
    """The plain sum of a report's losses and regularisers; None where there is no loss."""
    if not report.losses:
        return None
    return torch.stack([*report.losses.values(), *report.auxiliary.values()]).sum()


def unrolled_gradients(
    problem: StepProblem, held: Batch, rest: Batch, look_ahead: float
) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """Gradients of the held-out loss H(w', a) for the architecture a, where w' = w - α ∇_w L(w, a).

    That is ∇_a H - α ∇²_{a,w} L · d with d = ∇_w' H. The second term is measured by
    (∇_a L(w + ε d) - ∇_a L(w - ε d)) / 2ε with ε = 0.01 / ‖d‖. Both passes see the same random numbers.
    Losses are plain sums over tasks.

    Args:
        problem: of the step; all its processes call this.
        held: the images that are held out; a process may have none.
        rest: the others; a process may have none.
        look_ahead: α.

    Returns:
        {index of an architecture parameter: gradient}, mean over processes, and the losses on `held`.

    Raises:
        ValueError: the network has no architecture parameter.
    """
    named = [(index, name) for index, (name, item) in enumerate(problem.parameters) if item.requires_grad]
    chosen = [index for index, name in named if is_architecture(name)]
    if not chosen:
        raise ValueError(
            f"SearchStep: look_ahead={look_ahead}, but none of {len(named)} trained parameters chooses an "
            "architecture. Use an adapter with gates (PublicPrivate, BranchingSearch), or PlainStep."
        )
    weights = [index for index, name in named if not is_architecture(name)]
    parameters = [item for _, item in problem.parameters]
    seen: dict[str, Tensor] = {}

    def judged(report: LossReport) -> Tensor | None:
        seen.update({name: loss.detach() for name, loss in report.losses.items()})
        return total_of(report)

    step = gradient_of(problem, rest, weights, total_of)
    with moved(parameters, {index: -look_ahead * item for index, item in step.items()}):
        found = gradient_of(problem, held, [*chosen, *weights], judged)
    direction = {index: found[index] for index in weights}
    norms = [torch.linalg.vector_norm(item) for item in direction.values()]
    length = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
    epsilon = float(LENGTH / length.clamp(min=1e-12))
    device = parameters[0].device
    slopes = []
    for sign in (-epsilon, epsilon):
        moves = {index: sign * item for index, item in direction.items()}
        with torch.random.fork_rng([device] if device.type == "cuda" else []), moved(parameters, moves):
            slopes.append(gradient_of(problem, rest, chosen, total_of))
    behind, ahead = slopes
    bent = {
        index: found[index] - look_ahead * (ahead[index] - behind[index]) / (2 * epsilon) for index in chosen
    }
    return bent, seen
