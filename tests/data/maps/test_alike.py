"""One file of a set that means something else than the rest: named, wherever it lies and whoever reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mtvision
from mtvision.core.files.foreign import DecodeError
from mtvision.core.task import IGNORE
from mtvision.data.folder import FolderDataset
from mtvision.data.maps.alike import ContradictionError
from mtvision.data.maps.options import MapOptions
from mtvision.evaluation.prediction_maps import decide_predictions, prediction_of
from mtvision.protocols import own_protocol

H, W = 16, 20
BITS = np.zeros((H, W), np.uint8)
BITS[4:9, 3:11] = 1
METRES = np.linspace(1, 5, H * W, dtype=np.float32).reshape(H, W)
VECTORS = np.random.default_rng(0).normal(size=(H, W, 3))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=2, keepdims=True)).astype(np.float32)
SOFT = np.linspace(0, 255, H * W).reshape(H, W).astype(np.uint8)

ODD = {
    "millimetres among metres": ("depth", {}, METRES, 1000 * METRES, "its median is 3000, that of the set 3"),
    "kilometres among metres": ("depth", {}, METRES, METRES / 1000, "its median is 0.003"),
    "metres among millimetres": (
        "depth",
        {"scale": 1000},
        1000 * METRES,
        METRES,
        "its median is 0.003 m by scale=1000, that of the set",
    ),
    "micrometres among millimetres": (
        "depth",
        {"scale": 1000},
        1000 * METRES,
        1e6 * METRES,
        "its median is 3000 m by scale=1000",
    ),
    "normals in 0..1": ("normals", {}, VECTORS, (VECTORS + 1) / 2, "length 1 only as 2 v - 1"),
    "normals in 0..255": ("normals", {}, VECTORS, (VECTORS + 1) * 127.5, "expected unit vectors"),
    "0 and 255 among ids 0 and 1": ("saliency", {}, BITS, 255 * BITS, "holds 255 and no 1"),
    "0 and 1 among masks": ("saliency", {"encoding": "mask"}, 255 * BITS, BITS, "ends at 1"),
    "0 and 1 among soft maps": ("edge", {}, SOFT, BITS, "ends at 1"),
    "0..1 among 0..255": ("edge", {"encoding": "mask"}, SOFT.astype(np.float32), SOFT / 255, "ends at 1"),
}
INSIDE, OUTSIDE = 3, 2
"""Of 60 files, one that is looked at when the set is made, and one that is not."""


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values.dtype == np.uint8:
        Image.fromarray(values).save(path.with_suffix(".png"))
    else:
        np.save(path.with_suffix(".npy"), values.astype(np.float32))


def folder(root, task, options, usual, odd, at, count=60):
    for index in range(count):
        write(root / f"images/{index:02}", np.full((H, W, 3), index, np.uint8))
        write(root / f"{task}/{index:02}", odd if index == at else usual)
    labels = {task: {"folder": task, **options}}
    return FolderDataset(root, labels=labels, protocol=own_protocol("own", {task: {}}))


@pytest.mark.parametrize("at", [INSIDE, OUTSIDE], ids=["looked at", "not looked at"])
@pytest.mark.parametrize("name", ODD)
def test_the_odd_file_is_named(name, at, tmp_path):
    task, options, usual, odd, said = ODD[name]
    with pytest.raises(DecodeError, match=rf"{task}/{at:02}\.\w+: ") as caught:
        folder(tmp_path, task, options, usual, odd, at)[at]
    if isinstance(caught.value, ContradictionError):
        assert said in str(caught.value)
        assert "the files that were looked at are" in str(caught.value)


def test_what_was_said_by_hand_is_not_doubted(tmp_path):
    metres = folder(tmp_path / "a", "depth", {"scale": 1}, METRES, 1000 * METRES, INSIDE)
    assert float(metres[INSIDE].labels["depth"].max()) == 5000
    for index, factor in enumerate((0.01, 100)):  # a close object, and a view from a roof
        folder(
            tmp_path / f"c{index}", "depth", {"scale": 1000}, 1000 * METRES, 1000 * factor * METRES, INSIDE
        )
    marked = np.where(BITS > 0, IGNORE, 0).astype(np.uint8)
    ids = folder(tmp_path / "b", "saliency", {"encoding": "ids"}, BITS, marked, INSIDE)
    assert set(ids[INSIDE].labels["saliency"].unique().tolist()) == {0, IGNORE}


def test_files_without_content_are_like_any_others(tmp_path):
    for index, (task, usual) in enumerate([("depth", METRES), ("normals", VECTORS), ("edge", SOFT)]):
        data = folder(tmp_path / str(index), task, {}, usual, 0 * usual, INSIDE, count=5)
        assert data[INSIDE].labels[task].shape[-2:] == (H, W)


def test_predictions_are_compared_as_labels_are(tmp_path):
    task = own_protocol("own", {"depth": {}}).tasks[0]
    for index in range(3):
        write(tmp_path / str(index), METRES * (1000 if index == 1 else 1))
    paths = sorted(tmp_path.iterdir())
    encoding = decide_predictions(task, paths, MapOptions())
    prediction_of(task, paths[0], encoding, (H, W))
    with pytest.raises(ContradictionError, match=r"1\.npy: its median is 3000"):
        prediction_of(task, paths[1], encoding, (H, W))
    with pytest.raises(ValueError, match="prediction 1: its median"):
        mtvision.score([METRES, METRES * 1000, METRES], [METRES] * 3, "depth")
    with pytest.raises(ValueError, match="label 2: its median"):
        mtvision.score([METRES] * 3, [METRES, METRES, METRES * 1000], "depth")


def test_class_ids_predicted_in_a_lossy_format_are_refused(tmp_path):
    task = own_protocol("own", {"semseg": {"class_names": ["a", "b"]}}).tasks[0]
    path = tmp_path / "a.png"
    Image.fromarray(BITS).save(path, format="JPEG")
    with pytest.raises(ValueError, match=r"a\.png: semseg takes class ids stored without loss, found 8-bit"):
        prediction_of(task, path, decide_predictions(task, [path], MapOptions()), (H, W))
