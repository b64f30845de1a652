"""What learned mergers minimise: entropy, distance from the parents, or the tasks' own losses.

Entropy needs no label and is that of AdaMerging. Real-valued maps have no entropy. Their surrogate is ours:
the distance of the merged network's prediction from that of the task's own parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.naming import UnknownNameError
from mtvision.core.output import NetworkOutput
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.losses.task_losses import TaskLosses
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import State

Kind = Literal["entropy", "parents", "labels"]


def _softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(logits, dim=1)


def _bernoulli(logits: Tensor) -> Tensor:
    return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)


_DISTRIBUTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "argmax": _softmax,
    "foreground": _softmax,
    "sigmoid": _bernoulli,
}
"""{activation of a task: logits to log probabilities}; other activations are no distribution."""


def log_probabilities(task: Task, logits: Tensor) -> Tensor | None:
    """Log probabilities (B, K, H, W) of a task's classes; None if its maps are values.

    One logit gives two classes.
    """
    distribution = _DISTRIBUTIONS.get(task.activation)
    return None if distribution is None else distribution(logits)


def entropy(log_p: Tensor) -> Tensor:
    """Mean over pixels of -Σ_k p_k ln p_k, in nats.

    >>> round(entropy(torch.full((1, 2, 3, 3), 0.5).log()).item(), 4)
    0.6931
    """
    return -(log_p.exp() * log_p).sum(dim=1).mean()


def divergence(log_p: Tensor, wanted: Tensor) -> Tensor:
    """Mean over pixels of KL(wanted || p) of log probabilities, in nats."""
    return (wanted.exp() * (wanted - log_p)).sum(dim=1).mean()


def relative_error(task: Task, logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference, as a share of the mean absolute deviation of `wanted` from its mean.

    Directions are made unit length first. A share has no unit, so that metres and pixels can be added.
    """
    if task.geometry == "direction":
        logits, wanted = F.normalize(logits, dim=1), F.normalize(wanted, dim=1)
    spread = (wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).abs().mean()
    return (logits - wanted).abs().mean() / spread.clamp(min=torch.finfo(wanted.dtype).tiny)


class Objective:
    """The weighted sum of one term per task.

    * `entropy`: of the classes; for real-valued maps, the term of `parents` (ours).
    * `parents`: KL divergence of the classes from those of the task's own parent; `relative_error` of values.
    * `labels`: the losses that the tasks name. Tasks without a label in a batch have no term.

    Args:
        problem: the images and how to predict.
        kind: one of these.
        parent: task to the state of its parent.
        weights: {task: factor}, 1 by default.

    Raises:
        UnknownNameError: a weight of no task.
    """

    def __init__(
        self,
        problem: MergeProblem,
        kind: Kind,
        parent: Callable[[str], State],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._problem, self._kind, self._parent = problem, kind, parent
        self._names = [task.name for task in problem.tasks]
        self._weights = dict.fromkeys(self._names, 1.0)
        for name, value in (weights or {}).items():
            if name not in self._weights:
                raise UnknownNameError("task in weights", name, self._names)
            self._weights[name] = float(value)
        self._losses = TaskLosses(problem.tasks) if kind == "labels" else None

    def __call__(self, state: State, batch: Batch) -> Tensor:
        """The sum for one state and batch, a scalar."""
        terms = self.terms(state, batch)
        total = torch.zeros((), device=self._problem.device)
        return sum((self._weights[name] * item for name, item in terms.items()), start=total)

    def terms(self, state: State, batch: Batch, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """{task: scalar}, unweighted.

        Args:
            state: of the merged network.
            batch: images, with labels where the kind needs them.
            tasks: all by default.
        """
        names = list(tasks or self._names)
        logits = self._problem.predict(state, batch, names)
        if self._losses is not None:
            return self._losses(NetworkOutput(dict(logits)), batch)
        return {name: self._term(name, logits[name], batch) for name in names}

    def wanted(self, name: str, batch: Batch) -> Tensor:
        """Logits of the task's own parent, without a graph."""
        with torch.no_grad():
            return self._problem.predict(self._parent(name), batch, [name])[name]

    def _term(self, name: str, logits: Tensor, batch: Batch) -> Tensor:
        task = self._problem.task(name)
        log_p = log_probabilities(task, logits)
        if log_p is not None and self._kind == "entropy":
            return entropy(log_p)
        target = self.wanted(name, batch)
        wanted = log_probabilities(task, target)
        if log_p is None or wanted is None:
            return relative_error(task, logits, target)
        return divergence(log_p, wanted)
