"""`loss_means="global"`: 2 processes of 4 images train as 1 of 8. `rank`: they train as the papers do."""

from __future__ import annotations

from pathlib import Path

import pytest
from n_ranks_jobs import CASES, train
from several_processes import two_ranks

pytestmark = pytest.mark.slow  # two processes that import torch and train every decoder
SUPPORT = Path(__file__).parents[1] / "support"
GLOBAL = [case for case in CASES if case != "rank"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes computed for every case."""
    return two_ranks(SUPPORT / "n_ranks_jobs.py", tmp_path_factory.mktemp("ranks"))


def apart(ours, theirs):
    """Norm of the difference over all tensors, relative to the norm of `theirs`."""
    assert ours.keys() == theirs.keys()
    difference = sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs)
    return (difference / sum(float(item.square().sum()) for item in theirs.values())) ** 0.5


@pytest.mark.parametrize("case", GLOBAL)
def test_two_processes_train_as_one(ranks, case):
    alone = train(case, 0, 1)
    for mine in (ranks[0][case], ranks[1][case]):
        assert apart(mine["gradients"], alone["gradients"]) < 1e-6
        assert apart(mine["change"], alone["change"]) < 1e-6
    first, second = (result[case]["logs"] for result in ranks)
    assert first == second
    for log, expected in zip(first, alone["logs"], strict=True):
        assert log == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_means_of_ranks_average_gradients_of_their_own_labels(ranks):
    """The documented difference: every process divides by its own counts of labels."""
    halves = [train("rank", 0, 1, only=range(start, start + 4))["gradients"] for start in (0, 4)]
    expected = {
        name: sum(half[name] for half in halves if name in half) / 2 for name in {**halves[0], **halves[1]}
    }
    assert apart(ranks[0]["rank"]["gradients"], expected) < 1e-12
    whole = train("rank", 0, 1)["gradients"]
    assert apart(ranks[0]["rank"]["gradients"], whole) > 1e-3
    assert ranks[0]["rank"]["logs"] == ranks[1]["rank"]["logs"]
