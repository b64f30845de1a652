"""Model Tinting, later SyMerge (arXiv 2412.19098)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.registry import MERGERS
from mtvision.core.sample import Batch
from mtvision.core.values import Count, Rate
from mtvision.merge.coefficients import check_patterns
from mtvision.merge.learned.descent import Descent, batches, losses_of
from mtvision.merge.learned.mixture import LearnedCoefficients, Mixture
from mtvision.merge.learned.objective import Objective, log_probabilities, relative_error
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import MergeError, Parents, State
from mtvision.merge.vectors import TaskVectors, merge_tensors


@MERGERS.register_module()
def tinting(
    base: State,
    parents: Parents,
    *,
    problem: MergeProblem,
    layers: Sequence[str] = ("heads.*",),
    keep: Literal["all", "agreeing"] = "all",
    scale: float | Mapping[str, float] = 0.3,
    steps: Count = 500,
    lr: Rate = 1e-3,
    layer_lr: Rate = 1e-2,
    seed: Count = 0,
) -> dict[str, Any]:
    """Learn coefficients per layer, and a layer of every task with them, from the parents' own predictions.

    "Model Tinting", arXiv 2412.19098. A round is one update per task, in random order, by one batch each.
    The loss is the cross-entropy with the classes that the task's own parent predicts. Real-valued maps have
    none. Their loss is the distance of `adamerging`, which is ours. The authors classify images and tune the
    classifier. Here `layers` names what is tuned, by default the heads.

    Args:
        base: θ_0.
        parents: {task: θ_t}.
        problem: images and tasks; the command makes it.
        layers: glob patterns of tensors that belong to one task.
        keep: pixels that count: `all`, or those where both networks agree or the parent is the more confident
            (`agreeing`, SyMerge). It concerns classes only.
        scale: the coefficients at the start.
        steps: rounds.
        lr: learning rate of the coefficients.
        layer_lr: that of the tuned layers.
        seed: of the order of tasks.

    Returns:
        The merged state, and the tuned tensors of all tasks beside it.

    Raises:
        MergeError: the states do not fit, a pattern matches nothing, nothing is held out, or a loss is not
            finite.
        UnknownNameError: a coefficient of no parent.
    """
    vectors = TaskVectors(base, parents)
    problem.check_parents(parents)
    tuned = _tuned(problem, layers)
    lambdas = LearnedCoefficients(vectors, "layer", scale)
    mixture = Mixture(vectors, problem.device)
    goal = Objective(problem, "parents", mixture.parent)
    layered = [item for tensors in tuned.values() for item in tensors.values()]
    descent = Descent("tinting", [([lambdas.values], lr), (layered, layer_lr)])
    names, stream = sorted(tuned), torch.Generator().manual_seed(seed)

    def loss(task: str, batch: Batch) -> Tensor:
        state = {**mixture.state(lambdas.scale, lambdas.shares), **tuned[task]}
        logits = problem.predict(state, batch, [task])[task]
        return imitation(problem, task, logits, goal.wanted(task, batch), keep)

    source = batches(problem, steps * len(names))
    for _ in range(steps):
        for index in torch.randperm(len(names), generator=stream).tolist():
            descent.step(loss(names[index], next(source)))
    lambdas.values.requires_grad_(False)
    problem.record.update(
        {
            **losses_of(descent),
            "coefficients": lambdas.to_plain(),
            "tuned": sorted(name for tensors in tuned.values() for name in tensors),
        }
    )
    own = {name: item.detach().cpu() for tensors in tuned.values() for name, item in tensors.items()}
    return {**merge_tensors(vectors, lambdas.scale, lambdas.shares), **own}


def imitation(problem: MergeProblem, name: str, logits: Tensor, wanted: Tensor, keep: str) -> Tensor:
    """How far logits are from the prediction of the task's own parent; mean over the pixels that count.

    Args:
        problem: of the task.
        name: of the task.
        logits: of the merged network.
        wanted: of the parent.
        keep: see `tinting`.
    """
    task = problem.task(name)
    log_p, target = log_probabilities(task, logits), log_probabilities(task, wanted)
    if log_p is None or target is None:
        return relative_error(task, logits, wanted)
    confidence, classes = target.max(dim=1, keepdim=True)
    loss = -log_p.gather(1, classes)
    if keep == "all":
        return loss.mean()
    own, chosen = log_p.detach().max(dim=1, keepdim=True)
    counted = (chosen == classes) | (confidence > own)
    return torch.where(counted, loss, 0).sum() / counted.sum().clamp(min=1)


def _tuned(problem: MergeProblem, layers: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """{task: {name: copy of a tensor that will be learned}}."""
    owned = {
        task: {n: x for n, x in own.items() if x.is_floating_point()} for task, own in problem.own.items()
    }
    check_patterns("layers", layers, [name for own in owned.values() for name in own])
    found = {
        task.name: {
            name: item.detach().clone().to(problem.device).requires_grad_()
            for name, item in owned.get(task.name, {}).items()
            if any(fnmatchcase(name, pattern) for pattern in layers)
        }
        for task in problem.tasks
    }
    lacking = [task for task, tensors in found.items() if not tensors]
    if lacking:
        raise MergeError(f"layers: {', '.join(layers)} match no tensor of {', '.join(lacking)}.")
    return found
