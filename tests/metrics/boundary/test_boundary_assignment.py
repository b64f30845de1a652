"""The compiled assignment against brute force and against SciPy's solver."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mtvision.metrics.boundary import Matcher, matching
from mtvision.metrics.boundary.counts import count_image
from mtvision.metrics.boundary.protocols import SEISM_NYUD
from mtvision.metrics.boundary.speed import realistic_maps

pytestmark = pytest.mark.skipif(matching._kernel() is None, reason="no C++ compiler here")


def solve(edges, alone):
    """{row: column} and the cost of the pairs, for {(row, column): cost} with every row in it."""
    rows, columns = (np.array(side) for side in zip(*sorted(edges), strict=True))
    costs = np.array([float(edges[pair]) for pair in sorted(edges)])
    pairs, cost = matching._assign(rows, columns, costs, alone, matching._kernel())
    return dict(zip(*(side.tolist() for side in pairs), strict=True)), cost


@pytest.mark.parametrize(
    ("edges", "alone", "want"),
    [
        ({(0, 0): 7}, 100, {0: 0}),
        ({(0, 0): 101}, 100, {}),
        ({(0, 0): 1, (0, 1): 5, (1, 0): 2}, 100, {0: 1, 1: 0}),  # the nearer one makes way
        (
            {(0, 0): 1, (0, 1): 50, (1, 0): 2, (1, 2): 90},
            40,
            {0: 0},
        ),  # staying alone is cheaper than a detour
    ],
)
def test_by_hand(edges, alone, want):
    found, cost = solve(edges, alone)
    assert found == want
    assert cost == sum(edges[pair] for pair in want.items())


@pytest.mark.parametrize("alone", [5, 40, 1000])
def test_equals_brute_force_on_hundreds_of_graphs(alone):
    """Sparse and crowded graphs, with equal and zero costs; few and many rows must stay alone."""
    for seed in range(150):
        draw = np.random.default_rng(seed)
        height, width = draw.integers(1, 12, 2)
        costs = draw.integers(0, draw.choice([2, 10, 60]), (height, width))
        there = draw.random((height, width)) < draw.choice([0.15, 0.4, 1.0])
        edges = {(int(r), int(c)): int(costs[r, c]) for r, c in np.argwhere(there)}
        if not edges:
            continue
        found, cost = solve(edges, alone)
        assert len(set(found.values())) == len(found)
        assert cost == sum(edges[pair] for pair in found.items())
        dense = np.full((height, width + height), 10**6)
        dense[:, :width][there] = costs[there]
        dense[np.arange(height), width + np.arange(height)] = alone
        best = int(dense[linear_sum_assignment(dense)].sum())
        assert cost + alone * (height - len(found)) == best


def test_equals_scipy_on_realistic_maps():
    strengths, truth = realistic_maps(1, size=(96, 128), regions=8)
    for cut in (0.2, 0.5, 0.8):
        for radius in (1.5, 3.0, 9.0):
            slow, fast = (
                Matcher(truth, radius, compiled=flag).match(strengths > cut) for flag in (False, True)
            )
            assert fast.cost == slow.cost
            assert fast.prediction.sum() == slow.prediction.sum() == fast.truth.sum()


def test_counts_of_one_annotator_do_not_depend_on_the_solver(monkeypatch):
    strengths, truth = realistic_maps(2, size=(80, 100), regions=6)
    protocol = SEISM_NYUD.with_thresholds(5)
    fast = count_image(strengths, [truth], protocol)
    monkeypatch.setattr(matching, "_kernel", lambda: None)
    slow = count_image(strengths, [truth], protocol)
    for name in ("matched_truth", "truth", "matched_prediction", "prediction"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))


def test_several_annotators_are_matched_by_the_same_solver_everywhere(monkeypatch):
    """Their union depends on which of several equally good matches is taken."""
    strengths, truth = realistic_maps(2, size=(40, 50), regions=3)
    monkeypatch.setattr(matching, "_solve_compiled", pytest.fail)
    count_image(strengths, [truth, np.roll(truth, 1, 0)], SEISM_NYUD.with_thresholds(2))


def test_without_a_compiler_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert matching.LIBRARY.load() is None
    assert "boundary matching: no C++ compiler (no-such-compiler) found; SciPy's slower solver" in caplog.text
    assert isinstance(matching._kernel(), ctypes.CDLL)
