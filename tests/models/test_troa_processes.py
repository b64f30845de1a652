"""TROA on two processes (gloo): both have the mean of what each would learn alone."""

from __future__ import annotations

import pytest
import torch
from several_processes import SUPPORT, two_ranks
from troa_rank_worker import TASKS, learn

NAMES = [task.name for task in TASKS]


@pytest.mark.slow  # two processes that import torch
def test_two_processes_learn_the_mean_of_both(tmp_path):
    torch.manual_seed(1)
    images = torch.randn(1, 2, 2, 3, 16, 24)  # steps, processes, images of one
    everything = {"images": images, "labels": [NAMES, NAMES]}
    partial = {"images": images, "labels": [NAMES, NAMES[1:]]}  # the second has no label of the first task
    twice = {"images": torch.randn(2, 2, 2, 3, 16, 24), "labels": [NAMES, NAMES]}
    divided = {**everything, "divides": True}
    jobs = [everything, partial, twice, divided]
    torch.save(jobs, tmp_path / "jobs.pt")
    first, second = two_ranks(SUPPORT / "troa_rank_worker.py", tmp_path, tmp_path / "jobs.pt")
    assert all(torch.equal(one, other) for one, other in zip(first[:3], second[:3], strict=True))
    whole, part, both = first[:3]
    alone = [learn(everything, rank, 1) for rank in range(2)]
    assert not torch.allclose(*alone, atol=1e-5)
    torch.testing.assert_close(whole, torch.stack(alone).mean(dim=0))
    torch.testing.assert_close(part[0], alone[0][0])  # only the first process saw that task
    torch.testing.assert_close(part[1:, 1:], torch.stack(alone).mean(dim=0)[1:, 1:])
    assert not torch.allclose(both, whole, atol=1e-5)  # a second step moved the means on
    # A pass that only one process makes ends, and what each learns from it stays its own.
    torch.testing.assert_close(second[3], alone[1])
