"""Branched Multi-Task Networks: a tree from the similarity of single-task networks (BMVC 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mtvision.architecture.partitions import refinements
from mtvision.architecture.tree import Partition, Tree
from mtvision.core.registry import SEARCHERS
from mtvision.core.values import Positive, Rate
from mtvision.models.branching.node import Node, exit_parameters, node_macs
from mtvision.models.branching.paths import cut_points
from mtvision.models.network import Network
from mtvision.search.branching import branching_result
from mtvision.search.problem import Searcher, SearchProblem
from mtvision.search.representation import rsa_affinities


@SEARCHERS.register_module()
class RSASearcher(Searcher):
    """Beam search for the tree of least dissimilarity in a parameter budget (Vandenhende et al., BMVC 2020).

    Affinity of two tasks at a level: Spearman correlation of the dissimilarity matrices of their single-task
    networks. Cost of a tree: over levels, the mean over groups of the largest dissimilarity (1 - affinity)
    within. `--budget` is the parameters of the branched backbone, in units of one backbone: 1 = everything
    shared, T = nothing.

    Args:
        cuts: where levels end, see `mtvision.models.branching.paths.cut_points`.
        images: held-out images that are compared.
        beam: trees kept per level; the search is exact where no more are possible.
        budget: without `--budget`; None = half-way between sharing all and nothing.
        image_size: (H, W) that MACs are counted for.
    """

    compares_single_tasks = True

    def __init__(
        self,
        *,
        cuts: str | Sequence[int] = "stages",
        images: Positive = 64,
        beam: Positive = 100,
        budget: Rate | None = None,
        image_size: tuple[Positive, Positive] = (512, 512),
    ) -> None:
        self.cuts, self.images, self.beam, self.budget = cuts, images, beam, budget
        self.image_size = (int(image_size[0]), int(image_size[1]))

    def search(self, problem: SearchProblem) -> dict[str, Any]:
        """`tree`, `cost`, `affinities`, `log`.

        Raises:
            ValueError: the budget is below 1, or a single-task network is missing.
        """
        names = [task.name for task in problem.tasks]
        networks = single_task_networks(problem)
        backbone = networks[names[0]].backbone
        ends = cut_points(backbone, self.cuts)
        uses = exit_parameters(backbone)
        starts = (0, *ends[:-1])
        chain = [Node(backbone, start, end, uses) for start, end in zip(starts, ends, strict=True)]
        sizes = [sum(item.numel() for item in node.parameters()) for node in chain]
        affinities = rsa_affinities(networks, problem, ends, self.images)
        given = problem.options.get("budget", self.budget)
        budget = float((1 + len(names)) / 2 if given is None else given)
        trees = beam_search(names, affinities, sizes, budget * sum(sizes), self.beam)
        blocks = [end - start for start, end in zip(starts, ends, strict=True)]
        tree = Tree(trees[0][1], tuple(blocks))
        found = branching_result(tree, chain, node_macs(chain, self.image_size))
        found["affinities"] = {
            "tasks": names,
            "measure": "Spearman correlation of representation dissimilarity matrices",
            "levels": affinities.tolist(),
            "mean": affinities.mean(dim=0).tolist(),
        }
        found["log"] = {
            "budget": budget,
            "runners_up": [
                {"dissimilarity": score, "levels": [[list(group) for group in level] for level in levels]}
                for score, levels in trees[:5]
            ],
        }
        return found


def single_task_networks(problem: SearchProblem) -> dict[str, Network]:
    """{task: its single-task network} in the order of the tasks.

    Raises:
        ValueError: one is missing.
    """
    names = [task.name for task in problem.tasks]
    lacking = [name for name in names if name not in problem.others]
    if lacking:
        raise ValueError(
            f"no single-task network of {', '.join(lacking)}; give --others {lacking[0]}=CHECKPOINT …, or "
            "leave --others out to have all of them trained."
        )
    return {name: problem.others[name] for name in names}


def beam_search(
    tasks: Sequence[str], affinities: Tensor, sizes: Sequence[float], budget: float, beam: int
) -> list[tuple[float, tuple[Partition, ...]]]:
    """The best trees with Σ groups · size <= budget: (dissimilarity, partitions per level), best first.

    Args:
        tasks: names.
        affinities: (levels, T, T).
        sizes: parameters of one copy of each level.
        budget: largest sum.
        beam: partial trees kept per level.

    Raises:
        ValueError: even full sharing is above the budget.
    """
    if budget < sum(sizes) * (1 - 1e-9):
        raise ValueError(
            f"the budget of {budget / sum(sizes):.3g} backbones is too small: sharing all of it costs 1."
        )
    kept: list[tuple[float, float, tuple[Partition, ...]]] = [(0.0, 0.0, ())]
    for level, size in enumerate(sizes):
        rest = sum(sizes[level + 1 :])
        grown = []
        for score, spent, levels in kept:
            for partition in refinements(levels[-1] if levels else (tuple(tasks),)):
                used = spent + len(partition) * size
                if used + len(partition) * rest <= budget * (1 + 1e-9):
                    step = _dissimilarity(partition, tasks, affinities[level])
                    grown.append((score + step, used, (*levels, partition)))
        kept = sorted(grown, key=lambda item: (round(item[0], 12), item[1]))[:beam]
    return [(score, levels) for score, _, levels in kept]


def _dissimilarity(partition: Partition, tasks: Sequence[str], affinity: Tensor) -> float:
    place = {name: index for index, name in enumerate(tasks)}
    worst = [
        max(
            (1 - float(affinity[place[one], place[two]]) for one in group for two in group if one != two),
            default=0.0,
        )
        for group in partition
    ]
    return sum(worst) / len(worst)
