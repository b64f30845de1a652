"""AdaMerging (Yang et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mtvision.core.registry import MERGERS
from mtvision.core.values import Count, Rate
from mtvision.merge.learned.descent import Descent, minimise
from mtvision.merge.learned.mixture import LearnedCoefficients, Mixture
from mtvision.merge.learned.objective import Objective
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import Parents, State
from mtvision.merge.vectors import TaskVectors, merge_tensors


@MERGERS.register_module()
def adamerging(
    base: State,
    parents: Parents,
    *,
    problem: MergeProblem,
    per: Literal["task", "layer"] = "layer",
    objective: Literal["entropy", "parents", "labels"] = "entropy",
    scale: float | Mapping[str, float] = 0.3,
    steps: Count = 500,
    lr: Rate = 1e-3,
    weights: Mapping[str, float] | None = None,
    limits: Literal["none", "unit"] = "none",
) -> dict[str, Any]:
    """Task arithmetic whose coefficients minimise the entropy of predictions on images without labels.

    Yang et al., "AdaMerging", ICLR 2024: θ^l = θ_0^l + Σ_t λ_t^l τ_t^l. Coefficients are one per task
    (`per="task"`) or one per task and tensor (`layer`).

    The paper classifies images. Here entropy is that of pixels. Real-valued maps have none. Their term is the
    distance from the task's own parent, as a share of its spread, which is ours. Images are held-out training
    images; the paper takes those of the test set.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        problem: images and tasks; the command makes it.
        per: what has a coefficient of its own.
        objective: `entropy`; `parents` imitates every task's own parent, classes too; `labels` uses losses.
        scale: the coefficients at the start, one number or {task: λ_t}.
        steps: updates of Adam, one batch each.
        lr: its learning rate.
        weights: {task: factor of its term}, 1 by default.
        limits: `unit` reads coefficients as if cut off at 0 and 1, as the authors' code does. Coefficients
            outside then have no gradient.

    Raises:
        MergeError: the states do not fit, nothing is held out, or a loss is not finite.
        UnknownNameError: a coefficient or weight of no parent.
    """
    vectors = TaskVectors(base, parents)
    problem.check_parents(parents)
    lambdas = LearnedCoefficients(vectors, per, scale, limited=limits == "unit")
    mixture = Mixture(vectors, problem.device)
    goal = Objective(problem, objective, mixture.parent, weights)
    facts = minimise(
        problem,
        Descent("adamerging", [([lambdas.values], lr)]),
        lambda batch: goal(mixture.state(lambdas.scale, lambdas.shares), batch),
        steps,
    )
    problem.record.update({**facts, "coefficients": lambdas.to_plain()})
    lambdas.values.requires_grad_(False)
    return merge_tensors(vectors, lambdas.scale, lambdas.shares)
