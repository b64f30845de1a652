"""Samples do not depend on who loads them, and a loader that starts late gives what it would have given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mtvision.core.sample import collate
from mtvision.data.nyudv2 import NYUDv2

BATCHES = 6


def batches(dataset, workers, start=0):
    """Batches `start` to `BATCHES` as plain arrays, NaN replaced."""
    sampler = dataset.batch_sampler(2, seed=3)
    sampler.start_batch = start
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate)
    found = []
    for batch, _ in zip(loader, range(start, BATCHES), strict=False):
        maps = {"image": batch.image, **batch.labels}
        found.append((batch.ids, {name: value.nan_to_num(nan=-9).numpy() for name, value in maps.items()}))
    return found


@pytest.mark.parametrize(("workers", "start"), [(1, 0), (2, 0), (2, 4), (0, 3)])
def test_batches_are_the_same_with_any_workers_from_any_start(miniature, tmp_path, workers, start):
    root = miniature.nyud(tmp_path / "NYUDv2")
    dataset = NYUDv2(
        root, split="train", check=False, transforms={"preset": "invpt-train", "size": (24, 32)}, seed=5
    )
    torch.manual_seed(workers)  # the workers' own seeds play no part
    expected = batches(dataset, 0)[start:]
    found = batches(dataset, workers, start)
    assert len(found) == BATCHES - start
    for (ids, maps), (other_ids, others) in zip(found, expected, strict=True):
        assert ids == other_ids
        for name, array in maps.items():
            np.testing.assert_array_equal(array, others[name])
