"""mOSD: point clouds, preparation, labels, and what is refused by name."""

from __future__ import annotations

import json
import struct

import cv2
import numpy as np
import pytest

from mtvision.core.files.foreign import DecodeError
from mtvision.core.instances import BASE
from mtvision.core.task import IGNORE
from mtvision.data import Mosd
from mtvision.data.mosd import objects_of
from mtvision.data.prepare import prepare_mosd
from mtvision.data.prepare.mosd import frame_of
from mtvision.data.prepare.pcd import read_pcd, unpack_lzf

QUIET = {"progress": False, "expected": None}
HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS label x y z rgba
SIZE 4 4 4 4 4
TYPE U F F F U
COUNT 1 1 1 1 1
WIDTH {width}
HEIGHT {height}
VIEWPOINT 0 0 0 1 0 0 0
POINTS {points}
DATA binary_compressed
"""


def arrays(seed=0, height=24, width=32):
    """A table that slopes away with two objects on it, and a margin without depth."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    depth = np.broadcast_to(np.arange(1500, 1500 - 10 * height, -10)[:, None], (height, width)).copy()
    label = np.ones((height, width), np.int64)
    label[8:16, 8:14], label[8:16, 14:20], label[8:12, 14:20] = 20, 31, 30
    depth[:, -6:], label[:, -6:] = 0, 0
    return rgb, depth.astype(np.uint16), label.astype(np.uint8)


def write_pcd(path, rgb, depth, label, *, organised=True, pack=None):
    height, width = depth.shape if organised else (1, depth.size)
    z = np.where(depth > 0, depth / 1000, np.nan).astype("<f4")
    packed = (rgb.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2).astype("<u4")
    plain = b"".join(part.tobytes() for part in (label.astype("<u4"), z, z, z, packed))
    literals = b"".join(
        bytes([len(part) - 1]) + part for part in (plain[i : i + 32] for i in range(0, len(plain), 32))
    )
    head = HEADER.format(width=width, height=height, points=width * height).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    body = literals if pack is None else pack(literals)
    path.write_bytes(head + struct.pack("<II", len(body), len(plain)) + body)


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


@pytest.mark.parametrize(
    ("kind", "value", "text"), [("depth", np.uint8(9), "8 bits"), ("label", 300, "to 300")]
)
def test_converted_frames_that_cannot_be_the_clouds_are_named(tmp_path, kind, value, text):
    frame = dict(zip(("rgb", "depth", "label"), arrays(), strict=True))
    frame[kind] = np.full((24, 32), value, value.dtype if kind == "depth" else np.uint16)
    for name, array in frame.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "in" / name / "learn0.png"), array)
    (problem,) = prepare_mosd(tmp_path / "in", tmp_path / "out", **QUIET).problems
    assert text in problem
    assert problem.endswith("expected 16 bits of millimetres and labels in 0..255. Convert it again.")


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
