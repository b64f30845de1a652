"""Data sets, the check, the manifest, scoring and the boundary tool use one decision about files."""

from __future__ import annotations

import json
import logging
import pickle

import cv2
import data_problems as problems
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mtvision.cli.main import call
from mtvision.core.naming import UnknownNameError
from mtvision.data.check import collect, judge, render, to_json
from mtvision.data.decode import DecodeError
from mtvision.data.folder import FolderDataset
from mtvision.data.manifest import data_manifest, scored_data
from mtvision.evaluation.prediction_files import PredictionFiles, PredictionWriter
from mtvision.evaluation.prediction_maps import BoundaryReader, map_options
from mtvision.protocols import own_protocol
from mtvision.protocols.tasks import depth, edge, normals, saliency, semseg

H, W = 12, 16
RNG = np.random.default_rng(1)
LINE = np.zeros((H, W), dtype=bool)
LINE[5] = True
PICTURE = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def folder(root, array, name="edge", suffix=".png", count=3):
    for index in range(count):
        save(root / f"images/{index}.png", PICTURE)
        save(root / f"{name}/{index}{suffix}", array)
    return root


def dataset(root, task="edge", **options):
    label = {"folder": task, **options}
    return FolderDataset(root, labels={task: label}, protocol=own_protocol("x", {task: {}}))


@pytest.mark.parametrize("top", [1, 255, 128])
@problems.EDGE_LEVELS
def test_a_data_set_reads_what_was_decided_and_says_so(top, tmp_path):
    data = dataset(folder(tmp_path, (LINE * top).astype(np.uint8)))
    np.testing.assert_array_equal(data.read(1).labels["edge"][..., 0], LINE)
    line = f"8-bit PNG holding 0 and {top} → mask, {top} = edge"
    assert data.encodings()["edge"].describe() == [line]
    assert data_manifest(data)["encodings"] == {"edge": [line]}
    assert data.parameters()["encodings"] == {"edge": [f"8-bit PNG: mask, {top} = 1"]}
    statistics = collect(data, range(3))
    shown = Console(record=True, width=200)
    render(shown, {"train": (data, statistics)}, judge(data, statistics))
    assert f"edge: {line}" in shown.export_text()
    assert to_json({"train": (data, statistics)}, [])["splits"]["train"]["encodings"] == {"edge": [line]}
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.read(2).labels["edge"], data.read(2).labels["edge"])


def test_another_meaning_is_another_fingerprint_and_class_maps_have_none(tmp_path):
    one = dataset(folder(tmp_path / "a", LINE.astype(np.uint8)))
    other = dataset(folder(tmp_path / "b", (LINE * 255).astype(np.uint8)))
    assert scored_data(one)["labels"] != scored_data(other)["labels"]
    assert scored_data(one)["fingerprint"] == scored_data(other)["fingerprint"]
    folder(tmp_path / "c", LINE.astype(np.uint8), "semseg")
    classes = own_protocol("x", {"semseg": {"class_names": ["a", "b", "c"]}})
    ids = FolderDataset(tmp_path / "c", labels={"semseg": "semseg"}, protocol=classes)
    assert "encodings" not in ids.parameters()
    assert "encodings" not in data_manifest(ids)


def test_roots_are_decided_one_by_one(tmp_path):
    roots = [
        folder(tmp_path / "a", LINE.astype(np.uint8)),
        folder(tmp_path / "b", (LINE * 255).astype(np.uint8)),
    ]
    data = dataset(roots)
    for index in (0, 5):
        np.testing.assert_array_equal(data.read(index).labels["edge"][..., 0], LINE)
    assert list(data.encodings()) == ["a/edge", "b/edge"]


@problems.LOSSY
def test_jpeg_labels_are_found_where_there_are_no_others(tmp_path):
    square = np.zeros((H, W), dtype=np.uint8)
    square[3:9, 5:11] = 255
    folder(tmp_path, square, "saliency", ".jpg")
    assert (dataset(tmp_path, "saliency").read(0).labels["saliency"] == square // 255).all()
    folder(tmp_path, (square // 255).astype(np.uint8), "saliency")  # PNG beside them
    assert "PNG" in dataset(tmp_path, "saliency").encodings()["saliency"].describe()[0]


@pytest.mark.parametrize(("task", "level"), [("depth", "error"), ("normals", "warning")])
def test_a_likely_sentinel_is_named_at_the_start_and_by_the_check(task, level, tmp_path, caplog):
    array = np.full((H, W), 1500, np.uint16) + np.arange(W, dtype=np.uint16)
    array[0] = 65535
    options = {"scale": 1000}
    if task == "normals":
        array = np.tile(np.array([128, 128, 255], np.uint8), (H, W, 1))
        array[0] = 0
        options = {}
    folder(tmp_path, array, task)
    mark = [0, 0, 0] if task == "normals" else 65535
    with caplog.at_level(logging.WARNING, "mtvision"):
        data = dataset(tmp_path, task, **options)
    assert "looks like a mark for 'no label'" in caplog.text
    found = judge(data, collect(data, range(3)))
    assert [item.level for item in found if "looks like a mark" in item.text] == [level]
    settled = dataset(tmp_path, task, **options, invalid=[mark])
    assert np.isnan(settled.read(0).labels[task][0]).all()
    assert np.isfinite(settled.read(0).labels[task][1:]).all()
    assert not [item for item in judge(settled, collect(settled, range(3))) if "mark" in item.text]


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("ending", [".png", ".tif"])
@problems.DEEP_PHOTOGRAPHS
def test_deep_photographs_are_scaled_by_what_they_use(bits, ending, tmp_path):
    top = 2**bits - 1
    for index in range(3):
        stored = np.linspace(0, top, H * W).reshape(H, W).astype(np.uint16)
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{index}{ending}"), stored)
        save(tmp_path / f"edge/{index}.png", LINE.astype(np.uint8))
    data = dataset(tmp_path)
    image = data.read(0).image
    assert (image.dtype, image.shape) == (np.uint8, (H, W, 3))
    np.testing.assert_allclose(image[..., 0], stored / top * 255, atol=0.51)
    assert data.parameters()["images"] == [f"16-bit photographs that use {bits} bits: v / {top}"]
    cv2.imwrite(str(tmp_path / f"images/0{ending}"), stored + np.uint16(2 * top))
    with pytest.raises(DecodeError, match=r"images/0\..* holds .* photographs that were looked at use"):
        data.read(0)


@pytest.mark.parametrize("top", [65535, 2**14])
def test_photographs_of_more_bits_are_read_as_before(top, tmp_path):
    stored = np.full((H, W), top, dtype=np.uint16)
    for name in ("images", "edge"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "images/0.png"), stored)
    save(tmp_path / "edge/0.png", LINE.astype(np.uint8))
    data = dataset(tmp_path)
    assert (data.read(0).image == top >> 8).all()
    assert "images" not in data.parameters()


def predictions(root, task, arrays, suffix):
    for index, array in enumerate(arrays):
        save(root / task.name / f"{index}{suffix}", array)


@pytest.mark.parametrize(
    "task", [edge(), saliency(), saliency(family="survey")], ids=lambda task: task.headline
)
@pytest.mark.parametrize(
    ("suffix", "top", "kind"),
    [
        (".png", 1, np.uint8),
        (".png", 255, np.uint8),
        (".png", 1, np.uint16),
        (".png", 65535, np.uint16),
        (".png", 255, np.uint16),
        (".npy", 1, np.int64),
        (".npy", 255, np.int32),
    ],
)
@problems.PREDICTED_LEVELS
def test_predicted_probabilities_of_two_levels(task, suffix, top, kind, tmp_path):
    predictions(tmp_path, task, [(LINE * top).astype(kind), np.zeros((H, W), kind)], suffix)
    files = PredictionFiles.find(tmp_path, [task])
    np.testing.assert_array_equal(files.read(task, "0", (H, W))[0], LINE)
    assert files.read(task, "1", (H, W)).max() == 0


def test_own_files_of_8_bits_are_what_their_writer_says(tmp_path):
    import torch

    writer = PredictionWriter(tmp_path, (edge(),), identity={}, file_format="8bit")
    writer("0", {"edge": torch.full((1, H, W), 1 / 255 + 1e-4)})
    writer.finish()
    assert PredictionFiles.find(tmp_path, [edge()]).read(edge(), "0", (H, W)).max() == pytest.approx(1 / 255)


SAID = {
    "millimetres": (depth(), ".npy", np.full((1, H, W), 1523, np.int32), {"depth.scale": 1000}, 1.523),
    "millimetres in PNG": (depth(), ".png", np.full((H, W), 1523, np.uint16), {"depth.scale": 1000}, 1.523),
    "real millimetres": (depth(), ".npy", np.full((H, W), 1523.25), {"depth.scale": 1000}, 1.52325),
    "far": (depth(), ".npy", np.full((H, W), 152.0), {"depth.scale": 1}, 152),
    "0..255": (
        normals(),
        ".png",
        np.full((H, W, 3), 201, np.uint8),
        {"normals.encoding": "shifted"},
        147 / 255,
    ),
    "real 0..255": (normals(), ".npy", np.full((3, H, W), 201.0), {"normals.encoding": "shifted"}, 147 / 255),
    "5 annotators": (edge(), ".png", np.full((H, W), 3, np.uint8), {"edge.scale": 5}, 0.6),
}


@pytest.mark.parametrize("name", SAID)
@problems.PREDICTED_UNITS
def test_other_predictions_are_refused_until_it_is_said_what_they_are(name, tmp_path):
    task, suffix, array, said, expected = SAID[name]
    if task.name == "edge":
        array = array - (np.arange(W) % 3).astype(np.uint8)  # 1, 2 and 3
    predictions(tmp_path, task, [array], suffix)
    with pytest.raises(ValueError, match=r"0\.(png|npy): .*--maps "):
        PredictionFiles.find(tmp_path, [task]).read(task, "0", (H, W))
    files = PredictionFiles.find(tmp_path, [task], map_options(said, [task]))
    assert files.read(task, "0", (H, W))[:, 0, 0].numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "given", [{"depht.scale": 2}, {"depth.scal": 2}, {"depth.scale": 0}, {"semseg.scale": 2}]
)
def test_mistakes_in_what_is_said(given):
    with pytest.raises((ValueError, UnknownNameError), match="depth|semseg"):
        map_options(given, [depth(), semseg(["a", "b", "c"])])


CONFIG = """
protocol = dict(id="mine", tasks=dict(depth={}))
test_data = dict(dataset=dict(type="FolderDataset", root="ROOT", labels=dict(depth="depth")), batch_size=2)
"""


@problems.PREDICTED_UNITS
def test_score_takes_what_is_said_and_writes_it_down(tmp_path, capsys):
    folder(tmp_path, np.full((H, W), 1.5, np.float32), "depth", ".npy")
    predictions(tmp_path / "out", depth(), [np.full((H, W), 1500.0)] * 3, ".npy")
    (tmp_path / "c.py").write_text(CONFIG.replace("ROOT", str(tmp_path)))
    arguments = [
        str(tmp_path / "out"),
        "--config",
        str(tmp_path / "c.py"),
        "--json",
        str(tmp_path / "s.json"),
    ]
    assert call("score", arguments) == 2
    said = capsys.readouterr().err
    assert said.count("are no metres") == 1
    assert call("score", [*arguments, "--maps", "depth.scale=1000"]) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["scores"]["depth"]["rmse"] == pytest.approx(0, abs=1e-6)
    assert found["encodings"] == {"depth": ["float64 NPY holding 1500 → v / 1000"]}


@pytest.mark.parametrize(
    ("suffix", "arrays", "expected"),
    [
        (".png", [LINE.astype(np.uint8), np.zeros((H, W), np.uint8)], LINE),
        (".png", [(LINE * 65535).astype(np.uint16)], LINE),
        (".npy", [(LINE * 255).astype(np.int64), PICTURE[..., 0].astype(np.int64)], LINE),
        (".npy", [LINE], LINE),
        (".npy", [LINE * 0.5], LINE * 0.5),
    ],
)
@problems.PREDICTED_LEVELS
def test_the_boundary_tool_decides_from_all_files(suffix, arrays, expected, tmp_path):
    predictions(tmp_path, edge(), arrays, suffix)
    paths = sorted((tmp_path / "edge").iterdir())
    reader = pickle.loads(pickle.dumps(BoundaryReader(paths)))
    found = reader(paths[0])
    assert found.dtype.kind == "f" or found.dtype == bool
    np.testing.assert_array_equal(found, expected)


@problems.CHECKSUMS
def test_a_prediction_with_a_wrong_checksum_is_refused(tmp_path):
    predictions(tmp_path, semseg(["a", "b"]), [PICTURE[..., 0] % 2], ".png")
    path = tmp_path / "semseg" / "0.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"0\.png: the file is damaged"):
        PredictionFiles.find(tmp_path, [semseg(["a", "b"])]).read(semseg(["a", "b"]), "0", (H, W))
