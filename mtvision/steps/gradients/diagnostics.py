"""How the gradients of the tasks relate to one another, for any balancer.

The batch is passed once more, with the weights and the random numbers that the step will use. Products of the
gradients of the shared parameters (`mtvision.steps.gradients.products`) give norms and cosines. Running
statistics and random streams are put back, so that training continues as if nothing had been measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from mtvision.core.sample import Batch
from mtvision.steps.gradients.layout import Layouts, factor_of, trainable
from mtvision.steps.gradients.products import Products
from mtvision.steps.gradients.statistics import kept_buffers
from mtvision.steps.problem import StepProblem

GRADIENT = "gradient/"
SHARE = "share/"


class Diagnostics:
    """Measures the gradients of tasks; keeps the roles found for each set of tasks."""

    def __init__(self) -> None:
        self._layouts = Layouts()
        self._products = Products()

    def __call__(self, parts: Sequence[tuple[StepProblem, Batch]]) -> dict[str, Tensor]:
        """What to log, means over the parts of a batch; the same on all processes, which all call this."""
        found: dict[str, list[Tensor]] = {}
        for problem, batch in parts:
            for name, value in self._measure(problem, batch).items():
                found.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def _measure(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        named = trainable(problem)
        device = named[0][1].device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), kept_buffers(problem):
            losses = problem.forward(batch).losses
            layout = self._layouts(problem, batch, named, losses)
            if not layout.tasks or not layout.shared:
                return {}
            parameters = [item for _, item in named]
            factor = factor_of(problem, device)
            found = self._products(problem, parameters, losses, layout, factor, keep=False)
        return relations(found.gramian, layout.tasks)


def relations(gramian: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
    """Norms, cosines and conflicts from products of gradients; empty if these are not finite.

    * `gradient/norm/<task>`: norms.
    * `gradient/norm_ratio`: the largest norm over the smallest, of tasks with a gradient.
    * `gradient/cosine/<first>/<second>`: of each pair of tasks with a gradient.
    * `gradient/conflicts`: share of these pairs whose cosine is negative.

    >>> found = relations(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]), ["semseg", "depth"])
    >>> {name: float(value) for name, value in found.items()}
    {'gradient/norm/semseg': 2.0, 'gradient/norm/depth': 1.0, 'gradient/norm_ratio': 2.0, \
'gradient/cosine/semseg/depth': -0.5, 'gradient/conflicts': 1.0}
    """
    if not bool(gramian.isfinite().all()):
        return {}
    norms = gramian.diagonal().clamp(min=0).sqrt()
    found = {f"{GRADIENT}norm/{name}": norm for name, norm in zip(tasks, norms, strict=True)}
    moving = [row for row, norm in enumerate(norms.tolist()) if norm > 0]
    if moving:
        found[f"{GRADIENT}norm_ratio"] = norms[moving].max() / norms[moving].min()
    signs = []
    for first, second in combinations(moving, 2):
        cosine = gramian[first, second] / (norms[first] * norms[second])
        found[f"{GRADIENT}cosine/{tasks[first]}/{tasks[second]}"] = cosine
        signs.append((cosine < 0).to(gramian))
    if signs:
        found[f"{GRADIENT}conflicts"] = torch.stack(signs).mean()
    return found


def with_shares(measured: Mapping[str, Tensor], logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was measured, and `share/<task>`: the share of each weighted loss in their sum.

    Args:
        measured: of `Diagnostics`; shares are added only if there is something.
        logs: of the step, `loss/<task>` and `weight/<task>`; a balancer without weights counts as ones.
    """
    return {**measured, **loss_shares(logs)} if measured else {}


def loss_shares(logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`share/<task>` of each weighted loss in their sum; empty without a loss above 0.

    Args:
        logs: `loss/<task>` and `weight/<task>`; a balancer without weights counts as ones.

    >>> shares = loss_shares({"loss/depth": torch.tensor(1.0), "loss/edge": torch.tensor(3.0)})
    >>> {name: float(value) for name, value in shares.items()}
    {'share/depth': 0.25, 'share/edge': 0.75}
    """
    terms = {}
    for name, loss in logs.items():
        task = name.removeprefix("loss/")
        if task != name:
            terms[task] = (loss * logs.get(f"weight/{task}", torch.ones_like(loss))).abs()
    total = torch.stack(list(terms.values())).sum() if terms else torch.zeros(())
    return {f"{SHARE}{task}": term / total for task, term in terms.items()} if bool(total > 0) else {}
