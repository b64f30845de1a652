"""Grouping of tasks into a given number of networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtvision.architecture.partitions import set_partitions
from mtvision.architecture.tree import Partition
from mtvision.core.naming import look_up
from mtvision.core.registry import SEARCHERS
from mtvision.core.values import Positive, Rate
from mtvision.models.branching.paths import cut_points
from mtvision.search.data_maps import data_map_affinity, data_map_vectors, rank_clusterings
from mtvision.search.problem import Searcher, SearchProblem
from mtvision.search.representation import rsa_affinities
from mtvision.search.rsa import single_task_networks

MEASURES = {
    "gradient": "cosine of the tasks' gradients of the backbone",
    "lookahead": "relative fall of the column's loss after a step on the row's (TAG)",
    "rsa": "mean over levels of the correlation of representation dissimilarity matrices",
    "data_maps": "correlation of the tasks' data maps (STG-MTL)",
}


@SEARCHERS.register_module()
class GroupingSearcher(Searcher):
    """The best partition of the tasks into `--budget` networks, by enumeration of all partitions.

    Score of a partition: sum over tasks of the mean affinity to the others of its group; a task alone has 0.
    With data maps it is minus the objective of K-means, as in the paper.

    Args:
        affinity: `gradient` and `lookahead` use the multi-task network (Fifty et al., NeurIPS 2021, at one
            checkpoint instead of all along training). `rsa` compares single-task networks. `data_maps`
            compares the confidence in every training image during training with `DataMapStep` (STG-MTL,
            Sherif et al., 2023).
        networks: how many are to be trained, without `--budget`.
        batches: of held-out images, for `gradient` and `lookahead`.
        step_size: of the look-ahead step, relative to the norm of the backbone's parameters.
        cuts: levels that `rsa` compares.
        images: that `rsa` compares.

    Raises:
        UnknownNameError: unknown affinity.
    """

    def __init__(
        self,
        *,
        affinity: Literal["gradient", "lookahead", "rsa", "data_maps"] = "lookahead",
        networks: Positive = 2,
        batches: Positive = 8,
        step_size: Rate = 1e-3,
        cuts: str | Sequence[int] = "stages",
        images: Positive = 64,
    ) -> None:
        look_up("task affinity", affinity, MEASURES)
        self.affinity, self.networks, self.batches = affinity, networks, batches
        self.step_size, self.cuts, self.images = step_size, cuts, images
        self.compares_single_tasks = affinity == "rsa"

    def search(self, problem: SearchProblem) -> dict[str, Any]:
        """`groups`, `affinities`, `log`.

        Raises:
            ValueError: more networks than tasks, or none; or no data maps where they are needed.
        """
        names = [task.name for task in problem.tasks]
        count = int(problem.options.get("budget", self.networks))
        if not 1 <= count <= len(names):
            raise ValueError(f"grouping: {count} networks for {len(names)} tasks; give 1 to {len(names)}.")
        matrix, ranking = self._ranked(problem, names, count)
        return {
            "groups": [list(group) for group in ranking[0][1]],
            "affinities": {"tasks": names, "measure": MEASURES[self.affinity], "mean": matrix.tolist()},
            "log": {
                "networks": count,
                "ranking": [
                    {"score": score, "groups": [list(group) for group in groups]}
                    for score, groups in ranking[:10]
                ],
            },
        }

    def _ranked(
        self, problem: SearchProblem, names: Sequence[str], count: int
    ) -> tuple[Tensor, list[tuple[float, Partition]]]:
        if self.affinity == "data_maps":
            vectors = data_map_vectors(problem, names)
            return data_map_affinity(vectors), rank_clusterings(names, vectors, count)
        matrix = self._affinity(problem, names)
        return matrix, rank_groupings(names, matrix, count)

    def _affinity(self, problem: SearchProblem, names: Sequence[str]) -> Tensor:
        if self.affinity == "rsa":
            networks = single_task_networks(problem)
            ends = cut_points(networks[names[0]].backbone, self.cuts)
            return rsa_affinities(networks, problem, ends, self.images).mean(dim=0)
        if self.affinity == "gradient":
            return gradient_affinity(problem, names, self.batches)
        return lookahead_affinity(problem, names, self.batches, self.step_size)


def rank_groupings(tasks: Sequence[str], affinity: Tensor, networks: int) -> list[tuple[float, Partition]]:
    """All partitions into exactly `networks` groups with their scores, best first.

    Args:
        tasks: names.
        affinity: (T, T); entry (i, j) is what training with i does for j.
        networks: number of groups.
    """
    place = {name: index for index, name in enumerate(tasks)}

    def score(partition: Partition) -> float:
        total = 0.0
        for group in partition:
            for name in group:
                others = [float(affinity[place[item], place[name]]) for item in group if item != name]
                total += sum(others) / len(others) if others else 0.0
        return total

    found = [(score(item), item) for item in set_partitions(tuple(tasks)) if len(item) == networks]
    return sorted(found, key=lambda item: -item[0])


def gradient_affinity(problem: SearchProblem, names: Sequence[str], batches: int) -> Tensor:
    """(T, T) mean cosine between gradients of the tasks' losses with respect to the backbone."""
    total = torch.zeros(len(names), len(names), dtype=torch.float64)
    count = torch.zeros_like(total)
    parameters = _shared(problem)
    for batch in islice(problem.held_out(), batches):
        losses = _batch_losses(problem, batch)
        rows = {name: _flat_gradient(loss, parameters) for name, loss in losses.items()}
        for one, first in enumerate(names):
            for two, second in enumerate(names):
                if first in rows and second in rows:
                    cosine = torch.cosine_similarity(rows[first], rows[second], dim=0)
                    total[one, two] += cosine.double().cpu()
                    count[one, two] += 1
    return total / count.clamp(min=1)


def lookahead_affinity(
    problem: SearchProblem, names: Sequence[str], batches: int, step_size: float
) -> Tensor:
    """(T, T): 1 - L_j(after a step of the backbone along -∇L_i) / L_j(before), mean over batches (TAG)."""
    total = torch.zeros(len(names), len(names), dtype=torch.float64)
    count = torch.zeros_like(total)
    parameters = _shared(problem)
    norm = torch.stack([item.detach().norm() for item in parameters]).norm()
    for batch in islice(problem.held_out(), batches):
        losses = _batch_losses(problem, batch)
        gradients = {name: _flat_gradient(loss, parameters) for name, loss in losses.items()}
        for one, first in enumerate(names):
            if first not in gradients:
                continue
            step = gradients[first] * (step_size * norm / gradients[first].norm().clamp(min=1e-12))
            with _moved(parameters, step), torch.no_grad():
                after = _batch_losses(problem, batch)
            for two, second in enumerate(names):
                if second in after:
                    total[one, two] += 1 - float(after[second]) / max(float(losses[second].detach()), 1e-12)
                    count[one, two] += 1
    return total / count.clamp(min=1)


def _shared(problem: SearchProblem) -> list[nn.Parameter]:
    return [item for item in problem.network.backbone.parameters() if item.requires_grad]


def _batch_losses(problem: SearchProblem, batch: Any) -> dict[str, Tensor]:
    if problem.batch_losses is None:
        raise ValueError("grouping: this problem offers no losses of batches (batch_losses).")
    return problem.batch_losses(batch)


def _flat_gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    gradients = torch.autograd.grad(
        loss, list(parameters), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([item.flatten().float() for item in gradients])


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], step: Tensor) -> Iterator[None]:
    """Parameters minus `step` inside the block, exactly as before behind it."""
    before = [item.detach().clone() for item in parameters]
    parts = torch.split(step, [item.numel() for item in parameters])
    try:
        with torch.no_grad():
            for item, part in zip(parameters, parts, strict=True):
                item.sub_(part.view_as(item).to(item.dtype))
        yield
    finally:
        with torch.no_grad():
            for item, old in zip(parameters, before, strict=True):
                item.copy_(old)
