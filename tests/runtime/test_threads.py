"""Threads of a run on the CPU."""

from __future__ import annotations

import pytest
import torch

from mtvision.runtime.threads import threads


def test_a_block_has_its_threads_and_leaves_those_before():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before
