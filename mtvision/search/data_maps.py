"""Task grouping by data maps: STG-MTL (Sherif et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtvision.architecture.partitions import set_partitions
from mtvision.architecture.tree import Partition
from mtvision.search.problem import SearchProblem
from mtvision.steps.data_map import DataMap

_STATE = "_extra_state"
"""Where `DataMapStep` leaves its map in a checkpoint."""


def data_map_vectors(problem: SearchProblem, names: Sequence[str]) -> Tensor:
    """Vectors by which tasks are clustered: float64 (T, 2, images), standardised over images.

    Entry (t, 0) is the mean and (t, 1) the standard deviation of the confidence of task t in each image. Both
    have mean 0 and variance 1 over the images. The difficulty of a task and its measure of confidence
    therefore have no effect. Only the order of images does: which are easy and which unsteady. (The authors
    cluster the numbers as they are: their tasks all have class probabilities.) Images count that were seen
    twice or more.

    Raises:
        ValueError: the training run recorded no maps, or fewer than three such images.
    """
    if _STATE not in problem.step_state:
        raise ValueError(
            "grouping by data maps: the training run recorded none. Train it with "
            "step=dict(type='DataMapStep')."
        )
    recorded = DataMap.from_state(problem.step_state[_STATE])
    images = recorded.images(names, least=2)
    if len(images) < 3:
        raise ValueError(
            f"grouping by data maps: {len(images)} images were seen at least twice with labels of all of "
            f"{', '.join(names)}; at least 3 are needed. Train for more epochs."
        )
    maps = torch.stack([recorded.mean_and_std(name, images) for name in names])
    centred = maps - maps.mean(dim=2, keepdim=True)
    scale = centred.square().mean(dim=2, keepdim=True).sqrt()
    return torch.where(scale > 1e-12, centred / scale.clamp(min=1e-12), 0.0)


def data_map_affinity(vectors: Tensor) -> Tensor:
    """(T, T) correlation of the tasks' maps, the mean of that of means and that of deviations."""
    affinity: Tensor = torch.einsum("akn,bkn->ab", vectors, vectors) / vectors[0].numel()
    return affinity


def rank_clusterings(tasks: Sequence[str], vectors: Tensor, networks: int) -> list[tuple[float, Partition]]:
    """All partitions into exactly `networks` groups, best first; the score is minus the K-means objective.

    The objective is Σ ‖x_t − centre of its group‖² / (length of x). Looking at all partitions finds its
    smallest value, where Lloyd's algorithm may stop at another one.
    """
    flat = dict(zip(tasks, vectors.flatten(1), strict=True))

    def inertia(partition: Partition) -> float:
        total = 0.0
        for group in partition:
            rows = torch.stack([flat[name] for name in group])
            total += float((rows - rows.mean(dim=0)).square().sum()) / rows.shape[1]
        return total

    found = [(-inertia(item), item) for item in set_partitions(tuple(tasks)) if len(item) == networks]
    return sorted(found, key=lambda item: -item[0])
