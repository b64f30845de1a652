"""The timed variants make the same samples, so that their times may be compared."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mtvision.core.sample import SampleKey
from mtvision.data.array_cache import write_cache
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.speed import plain_sample, write_frames


@pytest.fixture(autouse=True)
def _threads():
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def test_plain_implementation_and_suite_and_cache_agree(tmp_path):
    size, crop = (85, 112), (90, 116)
    root = write_frames(tmp_path / "NYUDv2", 3, size)
    options = {
        "split": "train",
        "transforms": {"preset": "invpt-train", "size": crop},
        "check": False,
    }
    dataset = NYUDv2(root, **options)
    write_cache(dataset, tmp_path / "cache")
    cached = NYUDv2(root, cache=tmp_path / "cache", **options)
    for index, name in enumerate(dataset.ids):
        sample, again = dataset[index], cached[SampleKey(0, index)]
        plain = plain_sample(root, name, index, crop)
        assert torch.equal(sample.image, again.image)
        torch.testing.assert_close(sample.image, plain["image"], rtol=0, atol=2e-6)
        assert torch.equal(sample.labels["semseg"], plain["semseg"])
        for task in ("depth", "normals", "edge"):
            label = sample.labels[task]
            assert torch.equal(label.nan_to_num(nan=255.0), again.labels[task].nan_to_num(nan=255.0))
            torch.testing.assert_close(label.nan_to_num(nan=255.0), plain[task], rtol=0, atol=1e-6)


def test_frames_are_like_photographs_of_the_data_set(tmp_path):
    """A frame of NYUD-v2 has 1.07 bytes a pixel as PNG; the files to decode must not be easier by far."""
    root = write_frames(tmp_path / "NYUDv2", 2)
    sizes = [path.stat().st_size / (425 * 560) for path in (root / "images").iterdir()]
    assert 0.7 < np.mean(sizes) < 1.4
