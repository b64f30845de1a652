"""Grouping by data maps: closed forms, the whole search on a known answer, and refusals."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import known_answer
import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from torch import nn
from torch.nn import functional as F

from mtvision.protocols.tasks import depth
from mtvision.search import GroupingSearcher
from mtvision.search.data_maps import data_map_affinity, data_map_vectors, rank_clusterings
from mtvision.steps.confidence import true_confidence
from mtvision.steps.data_map import DataMap

NAMES = ("a", "b", "c", "d")


def problem(recorded, names=NAMES, **options):
    state = {} if recorded is None else {"_extra_state": recorded.state()}
    tasks = tuple(SimpleNamespace(name=name) for name in names)
    return SimpleNamespace(tasks=tasks, step_state=state, options=options)


def recorded_series(series):
    """A map from {task: (images, epochs)}."""
    recorded = DataMap()
    for task, rows in series.items():
        for index, row in enumerate(rows):
            for value in row:
                recorded.add(task, f"image-{index}", float(value))
    return recorded


def pairs_of_tasks(images=40, epochs=6, seed=0):
    """a and b agree up to a little noise and another scale, so do c and d."""
    rng = np.random.default_rng(seed)
    one, two = rng.random((2, images, epochs))
    return recorded_series(
        {"a": one, "b": 0.1 + 0.3 * one, "c": two, "d": two + 0.02 * rng.random((images, epochs))}
    )


def test_affinity_is_the_mean_of_two_correlations():
    found = problem(pairs_of_tasks())
    affinity = data_map_affinity(data_map_vectors(found, NAMES))
    recorded = DataMap.from_state(found.step_state["_extra_state"])
    images = recorded.images(NAMES)
    maps = np.stack([recorded.mean_and_std(name, images).numpy() for name in NAMES])
    expected = (np.corrcoef(maps[:, 0]) + np.corrcoef(maps[:, 1])) / 2
    np.testing.assert_allclose(affinity.numpy(), expected, atol=1e-12)
    assert affinity[0, 1].item() == pytest.approx(1)  # another scale of confidence makes no difference


def test_identical_maps_are_grouped_and_an_unrelated_task_stays_alone():
    recorded = pairs_of_tasks()
    found = GroupingSearcher(affinity="data_maps", networks=2).search(problem(recorded, ("a", "b", "c")))
    assert found["groups"] == [["a", "b"], ["c"]]
    assert found["log"]["ranking"][0]["score"] == pytest.approx(0, abs=1e-9)
    assert "STG-MTL" in found["affinities"]["measure"]
    found = GroupingSearcher(affinity="data_maps").search(problem(recorded, budget=2))
    assert sorted(map(sorted, found["groups"])) == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_score_is_the_smallest_objective_of_k_means(count):
    vectors = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    score, groups = rank_clusterings(NAMES, vectors, count)[0]
    flat = vectors.flatten(1).numpy()
    best = np.inf
    for start in itertools.combinations(range(4), count):  # Lloyd's algorithm from every choice of centres
        centres, labels = kmeans2(flat, flat[list(start)], minit="matrix")
        best = min(best, np.square(flat - centres[labels]).sum() / flat.shape[1])
    assert -score <= best + 1e-12
    assert -score == pytest.approx(best)
    assert len(groups) == count


def test_without_maps_or_with_too_few_images_it_says_what_to_do():
    searcher = GroupingSearcher(affinity="data_maps")
    with pytest.raises(ValueError, match="DataMapStep"):
        searcher.search(problem(None))
    once = recorded_series(dict.fromkeys(NAMES, np.random.default_rng(0).random((9, 1))))
    with pytest.raises(ValueError, match="0 images were seen at least twice"):
        searcher.search(problem(once))


def recorded_training(seed, *, images=48, epochs=16):
    """Data maps of one fully shared network with trained heads, on the problem of `known_answer`."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    image, labels = known_answer.batch(generator, images)
    trunk = known_answer.Narrow(width=4)
    heads = nn.ModuleDict({name: nn.Conv2d(4, 1, 1) for name in known_answer.NAMES})
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=1e-2)
    recorded, task = DataMap(), depth(family="mtan")  # values below zero stay
    for _ in range(epochs):
        for part in torch.randperm(images, generator=generator).split(8):
            feature = trunk(image[part]).maps[-1]
            output = {name: head(feature) for name, head in heads.items()}
            loss = sum(
                F.mse_loss(output[name][:, 0], labels[name][part]) / known_answer.HEADS[name].factor ** 2
                for name in known_answer.NAMES
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name in known_answer.NAMES:
                values = true_confidence(task, output[name].detach(), labels[name][part][:, None])
                for index, value in zip(part.tolist(), values.tolist(), strict=True):
                    recorded.add(name, str(index), value)
    return recorded


@pytest.mark.slow
def test_the_two_tasks_that_share_a_map_are_grouped():
    """At chance (1 in 3 per seed) all ten right has a probability of 2e-5."""
    for seed in range(10):
        found = GroupingSearcher(affinity="data_maps", networks=2).search(
            problem(recorded_training(seed), known_answer.NAMES)
        )
        assert {frozenset(group) for group in found["groups"]} == known_answer.ANSWER, seed


def test_images_seen_twice_count_and_those_seen_once_do_not():
    rng = np.random.default_rng(0)
    rows = [list(rng.random(epochs)) for epochs in (2, 2, 2, 1)]
    vectors = data_map_vectors(problem(recorded_series({"a": rows, "b": rows}), ("a", "b")), ("a", "b"))
    assert vectors.shape == (2, 2, 3)
