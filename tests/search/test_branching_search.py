"""Branching searches and task grouping on problems whose answer is known."""

from __future__ import annotations

import itertools

import known_answer
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mtvision.architecture.tree import Tree
from mtvision.core.registry import SEARCHERS
from mtvision.search.branching import together
from mtvision.search.grouping import rank_groupings
from mtvision.search.representation import dissimilarity_matrix, spearman
from mtvision.search.rsa import beam_search

NAMES = ("a", "b", "c")


@pytest.mark.slow
@pytest.mark.parametrize("method", known_answer.METHODS)
def test_search_finds_the_two_tasks_that_share_a_map(method):
    """At chance (0.22 per seed) all three right has a probability of 0.01."""
    for seed in (3, 4, 6):
        tree = known_answer.found_tree(method, seed)
        assert known_answer.right(tree), (seed, tree.levels[-1])


def test_spearman_and_dissimilarity_agree_with_scipy_and_numpy():
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, two = rng.integers(0, 6, 40), rng.integers(0, 6, 40) + rng.integers(0, 3, 40)
        found = spearman(torch.tensor(one), torch.tensor(two))
        assert found == pytest.approx(spearmanr(one, two).statistic)
    features = rng.normal(size=(5, 30))
    np.testing.assert_allclose(
        dissimilarity_matrix(torch.tensor(features)).numpy(), 1 - np.corrcoef(features), atol=1e-12
    )


def affinities(*levels):
    """Symmetric matrices from (ab, ac, bc)."""
    result = torch.ones(len(levels), 3, 3, dtype=torch.float64)
    for matrix, (ab, ac, bc) in zip(result, levels, strict=True):
        for one, two, value in ((0, 1, ab), (0, 2, ac), (1, 2, bc)):
            matrix[one, two] = matrix[two, one] = value
    return result


def all_trees(levels):
    choices = itertools.product(itertools.product(range(3), repeat=levels), repeat=3)
    trees = {Tree.from_paths(dict(zip(NAMES, paths, strict=True)), (1,) * levels).levels for paths in choices}
    return sorted(trees, key=str)


@pytest.mark.parametrize("budget", [3.0, 4.5, 6.0, 9.0])
def test_beam_search_equals_exhaustive_search(budget):
    matrices = affinities((0.9, 0.8, 0.85), (0.8, 0.3, 0.4), (0.7, 0.1, 0.2))
    sizes = (0.5, 1.0, 1.5)

    def dissimilarity(levels):
        total = 0.0
        for partition, matrix in zip(levels, matrices, strict=True):
            worst = [
                max(
                    (1 - float(matrix[NAMES.index(i), NAMES.index(j)]) for i in g for j in g if i != j),
                    default=0,
                )
                for g in partition
            ]
            total += sum(worst) / len(worst)
        return total

    fitting = [
        levels
        for levels in all_trees(3)
        if sum(len(p) * s for p, s in zip(levels, sizes, strict=True)) <= budget
    ]
    best = min(map(dissimilarity, fitting))
    found = beam_search(NAMES, matrices, sizes, budget, beam=1000)
    assert found[0][0] == pytest.approx(best)
    Tree(found[0][1], (1, 1, 1))  # valid
    spent = sum(len(p) * s for p, s in zip(found[0][1], sizes, strict=True))
    assert spent <= budget


def test_a_narrow_beam_keeps_no_tree_that_cannot_be_finished():
    """Splitting the first level looks best, but leaves no parameters for the two copies of the second."""
    matrices = affinities((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    ((score, levels),) = beam_search(NAMES, matrices, (1.0, 10.0), 12.0, beam=1)
    assert levels == ((NAMES,), (NAMES,))
    assert score == pytest.approx(2)


def test_budget_below_one_backbone_is_refused():
    with pytest.raises(ValueError, match="too small"):
        beam_search(NAMES, affinities((0.5, 0.5, 0.5)), (1.0,), 0.9, beam=5)


def test_grouping_enumerates_every_partition_and_prefers_allies():
    matrix = torch.tensor([[0.0, 0.3, -0.2], [0.1, 0.0, -0.1], [0.0, 0.05, 0.0]])
    ranking = rank_groupings(NAMES, matrix, 2)
    assert len(ranking) == 3
    assert ranking[0] == (pytest.approx(0.4), (("a", "b"), ("c",)))
    assert [len(rank_groupings(NAMES, matrix, count)) for count in (1, 3)] == [1, 1]
    assert rank_groupings(NAMES, matrix, 1)[0][0] == pytest.approx(
        (0.1 + 0.0) / 2 + (0.3 + 0.05) / 2 + (-0.2 - 0.1) / 2
    )


@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
def test_probability_of_sharing_equals_enumeration(mixing):
    net = known_answer.search(mixing, 0, steps=1, copies=[1, 2, 3], warmup=0)
    generator = torch.Generator().manual_seed(3)
    tables = [torch.randn(item.shape, generator=generator).softmax(dim=1) for item in net.architecture_logits]
    expected = torch.zeros(3, 3, 3)
    spaces = [list(itertools.product(range(t.shape[1]), repeat=t.shape[0])) for t in tables]
    for choice in itertools.product(*spaces):
        weight = np.prod(
            [float(t[i, j]) for t, c in zip(tables, choice, strict=True) for i, j in enumerate(c)]
        )
        paths = list(net.paths([list(level) for level in choice]).values())
        for level in range(3):
            for one, two in itertools.product(range(3), repeat=2):
                expected[level, one, two] += weight * (paths[one][: level + 1] == paths[two][: level + 1])
    found = torch.tensor(together(net, tables)["levels"])
    torch.testing.assert_close(found, expected)


def test_searchers_are_registered():
    for name in ("LTBSearcher", "BMTASSearcher", "RSASearcher", "GroupingSearcher"):
        assert SEARCHERS.get(name) is not None
