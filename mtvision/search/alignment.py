"""Alignment of what groups of tasks represent (CKA), and the tree that grows when similar groups merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

from torch import Tensor

from mtvision.architecture.tree import Group, Partition, Tree

Similarity = Callable[[int, Group, Group], float]
"""(level, one group, another group) to their similarity, 1 = alike."""


def linear_cka(first: Tensor, second: Tensor, *, debiased: bool = True) -> float:
    """Centred kernel alignment of two sets of features (Kornblith et al., ICML 2019), linear kernel.

    Args:
        first: (N, D) features of N images.
        second: (N, E) features of the same images.
        debiased: the unbiased estimator of HSIC (Song et al., 2012), which may be below 0. It needs four
            images.

    Returns:
        At most 1; 0 where one of them is constant.

    Raises:
        ValueError: too few images, or different numbers of them.
    """
    count = len(first)
    if len(second) != count or count < (4 if debiased else 2):
        raise ValueError(
            f"CKA needs features of the same {4 if debiased else 2} images or more, got {count} and "
            f"{len(second)}."
        )
    kernels = [item.double() @ item.double().T for item in (first, second)]
    measure = _unbiased if debiased else _biased
    one, two = measure(kernels[0], kernels[0]), measure(kernels[1], kernels[1])
    scale = (one.clamp(min=0) * two.clamp(min=0)).sqrt()
    size = float(kernels[0].abs().max() * kernels[1].abs().max())
    return float(measure(kernels[0], kernels[1]) / scale) if float(scale) > 1e-12 * max(size, 1e-300) else 0.0


def _biased(one: Tensor, two: Tensor) -> Tensor:
    """Tr(K H L H)."""
    centred = one - one.mean(dim=0) - one.mean(dim=1, keepdim=True) + one.mean()
    return (centred * two).sum()


def _unbiased(one: Tensor, two: Tensor) -> Tensor:
    count = len(one)
    one, two = one.clone(), two.clone()
    one.fill_diagonal_(0)
    two.fill_diagonal_(0)
    product = (one * two).sum()
    product = product + one.sum() * two.sum() / ((count - 1) * (count - 2))
    return product - 2 * (one.sum(dim=0) @ two.sum(dim=0)) / (count - 2)


def grown_tree(tree: Tree, similarity: Similarity, threshold: float) -> Tree:
    """The tree after one structural phase of MTSL (Gowda, Zonooz and Arani, 2023).

    At each level groups merge whose group of the level before was common already. The most similar pair is
    first. A pair merges if all its members are more alike than the threshold. Sharing grows by one level per
    phase, beginning with the first.

    Args:
        tree: before.
        similarity: of two groups of `tree` at a level.
        threshold: that must be exceeded.
    """
    levels: list[Partition] = []
    for level, partition in enumerate(tree.levels):
        above: Partition = (tree.tasks,) if level == 0 else tree.levels[level - 1]
        merged: list[Group] = []
        for parent in above:
            inside = [group for group in partition if set(group) <= set(parent)]
            merged += merged_groups(inside, partial(similarity, level), threshold)
        levels.append(tuple(merged))
    return Tree(tuple(levels), tree.blocks)


def merged_groups(
    groups: Sequence[Group], similarity: Callable[[Group, Group], float], threshold: float
) -> list[Group]:
    """Groups after merging, the most similar pair first; a cluster is as alike as its least similar pair."""
    known = {(one, two): similarity(one, two) for one, two in combinations(groups, 2)}
    clusters = [[group] for group in groups]

    def alike(one: Sequence[Group], two: Sequence[Group]) -> float:
        return min(known.get((a, b), known.get((b, a), 0.0)) for a in one for b in two)

    while len(clusters) > 1:
        one, two = max(
            combinations(range(len(clusters)), 2), key=lambda p: alike(clusters[p[0]], clusters[p[1]])
        )
        if alike(clusters[one], clusters[two]) <= threshold:
            break
        clusters[one] += clusters.pop(two)
    return [tuple(name for group in cluster for name in group) for cluster in clusters]
