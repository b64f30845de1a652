"""mOSD: point clouds, preparation, labels, and what is refused by name."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from clouds import arrays, write_pcd

from mtvision.core.files.foreign import DecodeError
from mtvision.core.instances import BASE
from mtvision.core.task import IGNORE
from mtvision.data import Mosd
from mtvision.data.mosd import objects_of
from mtvision.data.prepare import prepare_mosd
from mtvision.data.prepare.mosd import frame_of
from mtvision.data.prepare.pcd import read_pcd, unpack_lzf

QUIET = {"progress": False, "expected": None}


@pytest.fixture
def clouds(tmp_path):
    folder = tmp_path / "data" / "segmentation" / "mOSD"
    for seed, name in enumerate(("learn0", "learn1", "test0", "test63")):
        rgb, depth, label = arrays(seed)
        if name == "test63":
            label[label == 0] = 101
        write_pcd(folder / f"{name}.pcd", rgb, depth, label)
    write_pcd(folder / "test43.pcd", *arrays(7), organised=False)
    return tmp_path / "data"


def test_repeated_parts_of_lzf():
    # three literals, 6 bytes from 3 back, 12 bytes from 1 back (the long form)
    packed = bytes([2]) + b"abc" + bytes([4 << 5, 2]) + bytes([7 << 5, 3, 0])
    assert unpack_lzf(packed, 21) == b"abcabcabc" + b"c" * 12
    for damaged in (packed[:-1], packed + b"\0", bytes([1 << 5, 9]), packed[:5]):
        with pytest.raises((ValueError, IndexError)):
            unpack_lzf(damaged, 21)


def test_clouds_become_pictures_and_labels(clouds, tmp_path):
    outcome = prepare_mosd(clouds, tmp_path / "mosd", **QUIET)
    assert (outcome.problems, outcome.written, outcome.dataset) == ([], 16, "Mosd")
    rgb, depth, label = arrays(1)
    for kind, array in (("rgb", rgb[..., ::-1]), ("depth", depth), ("label", label)):
        stored = cv2.imread(str(tmp_path / "mosd" / kind / "learn1.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(stored, array)
    assert prepare_mosd(clouds, tmp_path / "mosd", **QUIET).kept == 16
    notes = json.loads((tmp_path / "mosd" / "prepared.json").read_text())["notes"]
    assert any("test43, test56, test58 are not organised and are left out" in note for note in notes)
    contradiction = [note for note in notes if "contradict" in note]
    assert contradiction == [
        f"test63: its labels contradict its depth, {24 * 6} of {24 * 32} pixels have a label and no "
        "depth. The loader gives these pixels no label"
    ]
    again = prepare_mosd(tmp_path / "mosd", tmp_path / "again", **QUIET)  # converted frames are a source too
    assert (again.problems, again.written) == ([], 16)
    for path in (tmp_path / "again").rglob("*.*"):
        if path.name != "prepared.json":
            assert (
                path.read_bytes() == (tmp_path / "mosd" / path.relative_to(tmp_path / "again")).read_bytes()
            )


def test_labels_follow_the_parts_and_the_depth(clouds, tmp_path):
    prepare_mosd(clouds, tmp_path / "mosd", **QUIET)
    data = Mosd(tmp_path / "mosd", split="val", check=False)
    assert data.ids == ["test0", "test63"]
    for index in range(2):
        raw = data.read(index)
        labels = raw.labels
        data.validate(index, raw)
        assert list(labels) == ["semseg", "depth", "normals", "edge", "saliency", "instance"]
        void = np.zeros((24, 32), bool)
        void[:, -6:] = True
        things = np.zeros((24, 32), int)
        things[8:16, 8:20] = 1
        expected = np.where(void, IGNORE, things)
        assert np.array_equal(labels["semseg"], expected)
        assert np.array_equal(labels["saliency"], expected)
        assert np.unique(labels["instance"]).tolist() == [0, IGNORE, BASE, BASE + 1]
        assert np.array_equal(np.isnan(labels["depth"][..., 0]), void)
        assert labels["depth"][0, 0, 0] == np.float32(1.5)
        assert np.isnan(labels["edge"][:, -7:]).all()  # also beside what has no label
        edge = labels["edge"][..., 0]
        assert edge[12, 12:16].max() == 1  # between objects
        assert edge[11:13, 16:18].max() == 0  # not between parts of one
        normals = labels["normals"][4:20, 2:22]
        assert np.allclose(np.linalg.norm(normals, axis=2), 1, atol=2e-3)
        assert (normals[..., 2] > 0).all()


def test_a_split_is_a_start_of_the_names_and_counts_are_checked(clouds, tmp_path):
    outcome = prepare_mosd(clouds, tmp_path / "mosd", progress=False)
    assert outcome.problems == [
        "mOSD train: 2 images, the published split has 45.",
        "mOSD val: 2 images, the published split has 62.",
    ]
    with pytest.raises(ValueError, match="found 2 images, the protocol has 45"):
        Mosd(tmp_path / "mosd", split="train")
    (tmp_path / "mosd" / "label" / "learn1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"learn1.png: label files of task 'semseg' are missing"):
        Mosd(tmp_path / "mosd", split="train", check=False)
    depth = Mosd(tmp_path / "mosd", split="train", check=False, tasks=["depth", "normals"])
    assert set(depth.read(1).labels) == {"depth", "normals"}


def test_bad_clouds_are_named(tmp_path):
    rgb, depth, label = arrays()
    write_pcd(tmp_path / "test44.pcd", rgb, depth, label, organised=False)
    write_pcd(tmp_path / "test45.pcd", rgb, depth, label, pack=lambda packed: packed[:-9])
    (tmp_path / "test46.pcd").write_bytes(b"no cloud\n")
    outcome = prepare_mosd(tmp_path, tmp_path / "out", **QUIET)
    texts = sorted(outcome.problems)
    assert len(texts) == 3
    assert "test44.pcd: the cloud is not organised (HEIGHT 1, 768 points)" in texts[0]
    assert "test45.pcd: not a readable PCD file" in texts[1]
    assert "test46.pcd: not a readable PCD file" in texts[2]
    with pytest.raises(FileNotFoundError, match="segmentation/mOSD of github.com/PointCloudLibrary/data"):
        prepare_mosd(tmp_path / "out", tmp_path / "other", **QUIET)


def test_ids_of_neither_table_nor_objects_are_refused(tmp_path):
    parts = np.full((4, 4), 12)
    with pytest.raises(DecodeError, match=r"x.png: holds the id 12, expected 0 .none., 1..9"):
        objects_of(tmp_path / "x.png", parts, np.ones((4, 4)))
    with pytest.raises(DecodeError, match="Take both from one set"):
        objects_of(tmp_path / "x.png", parts, np.ones((4, 5)))


@pytest.mark.slow
def test_labels_of_one_real_frame_contradict_its_depth(real_data):
    depth, label = (
        cv2.imread(str(real_data / "mosd" / kind / "test63.png"), cv2.IMREAD_UNCHANGED)
        for kind in ("depth", "label")
    )
    assert ((depth > 0) != (label > 0)).sum() == ((depth == 0) & (label > 0)).sum() == 124_828
    things = objects_of(real_data / "mosd" / "label" / "test63.png", label, depth)
    assert ((things == IGNORE) == ((depth == 0) | (label == 0))).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learn0", "test0"])
def test_original_clouds_give_the_converted_arrays(real_data, name):
    path = real_data / "mosd" / "raw" / f"{name}.pcd"
    frame = frame_of(path, read_pcd(path))
    for kind, array in (("rgb", frame.rgb[..., ::-1]), ("depth", frame.depth), ("label", frame.label)):
        stored = cv2.imread(str(real_data / "mosd" / kind / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == array.dtype
        assert np.array_equal(stored, array)


@pytest.mark.slow
def test_the_original_cloud_that_is_not_organised_is_refused(real_data):
    path = real_data / "mosd" / "raw" / "test43.pcd"
    with pytest.raises(ValueError, match=r"test43.pcd: the cloud is not organised .HEIGHT 1, 170986 points"):
        frame_of(path, read_pcd(path))
