"""Variations of what people's files have, beyond those beside each reader; and what no program can know."""

from __future__ import annotations

import data_problems as problems
import numpy as np
import pytest
import tifffile
from PIL import Image

from mtvision.data.check import collect, judge
from mtvision.data.folder import FolderDataset
from mtvision.protocols import own_protocol

H, W = 40, 60
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)
CLASSES = {"semseg": {"class_names": [f"class {index}" for index in range(20)]}}


def store(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def dataset(root, task, suffix, array, *, tasks=None, **options):
    """One image and its label, as a data set."""
    store(root / "images/a.png", PICTURE)
    store(root / f"{task}/a{suffix}", array)
    protocol = own_protocol("own", tasks or {task: {}})
    return FolderDataset(root, labels={task: {"folder": task, **options}}, protocol=protocol)


WIDE = {
    "16-bit PNG, 0 in 8 bits": (".png", np.uint16, 256),
    "16-bit PNG, 255 in 8 bits": (".png", np.uint16, 511),
    "the largest of 16 bits": (".tif", np.uint16, 65535),
    "NPY": (".npy", np.int64, 300),
    "NPY beyond 32 bits": (".npy", np.int64, 2**40),
    "NPZ": (".npz", np.int16, 257),
    "real numbers": (".npy", np.float32, 300),
    "negative": (".npy", np.int32, -1),
}


@problems.WIDE_LABELS
@pytest.mark.parametrize("name", WIDE)
def test_wide_ids_in_label_files(name, tmp_path):
    suffix, kind, value = WIDE[name]
    ids = (np.arange(H * W).reshape(H, W) % 20).astype(kind)
    ids[0] = value
    data = dataset(tmp_path, "semseg", suffix, ids, tasks=CLASSES)
    with pytest.raises(ValueError, match=rf"semseg/a\{suffix}: class id {value} out of range"):
        data[0]
    mapping = {**{index: index for index in range(20)}, value: 3}
    label = dataset(tmp_path, "semseg", suffix, ids, tasks=CLASSES, ids=mapping)[0].labels["semseg"]
    assert set(label[0].tolist()) == {3}
    assert set(label[1:].unique().tolist()) == {*range(20)}


MARKS = {
    "millimetres in 16 bits": (".png", np.uint16, 65535, 1000),
    "a camera's largest": (".png", np.uint16, 32001, 1000),
    "metres": (".npy", np.float32, 65.535, None),
    "a large number": (".npy", np.float64, 1e10, None),
    "TIFF": (".tif", np.float32, 655.35, None),
    "integers": (".npy", np.int32, 2**31 - 1, 1000),
}


@problems.DEPTH_MARKS
@pytest.mark.parametrize("name", MARKS)
def test_marks_for_no_reading_in_depth(name, tmp_path, caplog):
    suffix, kind, mark, scale = MARKS[name]
    depth = (np.linspace(1, 9, H * W).reshape(H, W) * (scale or 1)).astype(kind)
    depth[:4] = mark
    options = {} if scale is None else {"scale": scale}
    data = dataset(tmp_path, "depth", suffix, depth, **options)
    said = "covers 10.0% of the pixels and looks like a mark for 'no label'. Say invalid=["
    assert said in caplog.text
    errors = [item.text for item in judge(data, collect(data, [0])) if item.level == "error"]
    assert any(said in text for text in errors)
    settled = dataset(tmp_path, "depth", suffix, depth, invalid=[mark], **options).read(0).labels["depth"]
    assert np.isnan(settled[:4]).all()
    assert np.nanmax(settled) == pytest.approx(9, abs=0.01)


@problems.NORMALS_MARKS
@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (128, 128, 128), (127, 127, 127), (255, 255, 255), (0, 0, 255)]
)
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_colours_of_invalid_normals(deep, colour, tmp_path, caplog):
    vectors = RNG.normal(size=(H, W, 3))
    shares = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True) + 1) / 2
    mark = tuple(257 * value for value in colour) if deep else colour
    stored = np.round(shares * (65535 if deep else 255)).astype(np.uint16 if deep else np.uint8)
    stored[:4] = mark
    suffix = ".tif" if deep else ".png"
    dataset(tmp_path, "normals", suffix, stored)
    assert f"{mark} covers" in caplog.text
    settled = dataset(tmp_path, "normals", suffix, stored, invalid=[mark]).read(0).labels["normals"]
    assert np.isnan(settled[:4]).all()
    assert np.isfinite(settled[4:]).mean() > 0.99


@problems.DATA_EXIF
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_data_sets_read_what_annotators_saw(orientation, suffix, tmp_path):
    """Annotation tools show stored pixels, and labels have their size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for folder in ("images", "semseg"):
        (tmp_path / folder).mkdir()
    options = {} if suffix == ".jpg" else {"lossless": True}
    Image.fromarray(PICTURE).save(tmp_path / f"images/a{suffix}", exif=exif, **options)
    Image.fromarray(PICTURE[..., 0] % 20).save(tmp_path / "semseg/a.png")
    protocol = own_protocol("own", CLASSES)
    data = FolderDataset(tmp_path, labels={"semseg": "semseg"}, protocol=protocol)
    raw = data.read(0)
    said = [item.text for item in judge(data, collect(data, [0]))]
    assert "1 images say that they are shown turned; labels must fit the stored pixels: a." in said
    assert raw.image.shape[:2] == raw.labels["semseg"].shape == (H, W)
    if suffix != ".jpg":
        np.testing.assert_array_equal(raw.image, PICTURE)
    Image.fromarray(np.ascontiguousarray((PICTURE[..., 0] % 20).T)).save(tmp_path / "semseg/a.png")
    turned = rf"shown turned \(orientation {orientation}\)" if orientation > 4 else "another version"
    with pytest.raises(ValueError, match=rf"semseg/a\.png: .*{W}x{H}.*{turned}"):
        data[0]


@problems.NO_CHECKSUM
@pytest.mark.parametrize("suffix", [".npy", ".bmp", ".pfm", ".tif"])
def test_a_changed_number_where_the_format_has_no_checksum(suffix, tmp_path):
    ids = np.full((H, W), 7, np.float32 if suffix == ".pfm" else np.uint8)
    path = tmp_path / f"semseg/a{suffix}"
    if suffix == ".pfm":
        path.parent.mkdir()
        path.write_bytes(f"Pf\n{W} {H}\n-1.0\n".encode() + ids.tobytes())
        store(tmp_path / "images/a.png", PICTURE)
    else:
        dataset(tmp_path, "semseg", suffix, ids, tasks=CLASSES)
    content = path.read_bytes()
    places = content.rindex(ids[0].tobytes()) if suffix != ".bmp" else len(content) - W
    other = np.array(9, ids.dtype).tobytes()
    path.write_bytes(content[:places] + other + content[places + len(other) :])
    data = FolderDataset(tmp_path, labels={"semseg": "semseg"}, protocol=own_protocol("own", CLASSES))
    label = data.read(0).labels["semseg"]
    assert np.count_nonzero(label != 7) == 1


@problems.WRONG_SCALE
@pytest.mark.parametrize("scale", [500, 2000, 1200])
def test_a_wrong_scale_that_looks_right(scale, tmp_path):
    millimetres = np.linspace(1000, 9000, H * W).reshape(H, W).astype(np.uint16)
    data = dataset(tmp_path, "depth", ".png", millimetres, scale=scale)
    statistics = collect(data, [0])
    assert [item for item in judge(data, statistics) if item.where == "train depth"] == []
    assert statistics.tasks["depth"].high == pytest.approx(9000 / scale)


@problems.WRONG_ORDER
@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (0, 2, 1)])
def test_classes_in_another_order(order, tmp_path):
    names = ["road", "car", "tree"]
    ids = RNG.integers(0, 3, (H, W)).astype(np.uint8)
    tasks = {"semseg": {"class_names": [names[index] for index in order]}}
    data = dataset(tmp_path, "semseg", ".png", ids, tasks=tasks)
    assert [item for item in judge(data, collect(data, [0])) if item.where == "train semseg"] == []
    np.testing.assert_array_equal(data.read(0).labels["semseg"], ids)
