"""Threads of a run on the CPU."""

from __future__ import annotations

import torch

from mtvision.runtime.threads import threads


def test_a_block_has_its_threads_and_leaves_those_before():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
