"""Prediction files that hold something else than a metric takes are all named, and nothing is scored."""

from __future__ import annotations

import io
import json
import math

import data_problems as problems
import numpy as np
import pytest
import torch
from PIL import Image

from mtvision.cli.main import call
from mtvision.core.naming import ReportedError
from mtvision.core.sample import Batch, Meta
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.prediction_files import PredictionFiles, PredictionFilesError
from mtvision.evaluation.scoring import evaluate_files
from mtvision.protocols.tasks import depth, edge, instance, normals, saliency, semseg

SIZE = (2, 3)
TASKS = {
    "semseg": semseg(["a", "b"]),
    "depth": depth(),
    "normals": normals(),
    "edge": edge(thresholds=3),
    "saliency": saliency(),
    "instance": instance(["a"]),
}
LABELS = {
    "semseg": torch.zeros(SIZE, dtype=torch.long),
    "depth": torch.ones(1, *SIZE),
    "normals": torch.ones(3, *SIZE),
    "edge": torch.zeros(1, *SIZE),
    "saliency": torch.zeros(SIZE, dtype=torch.long),
    "instance": torch.zeros(SIZE, dtype=torch.long),
}


class Loader(list):
    """Batches, and a data set that has ids."""

    class Set:
        def __init__(self, ids):
            self.ids = ids

        def __len__(self):
            return len(self.ids)

    def __init__(self, ids, names):
        batch = Batch(
            image=torch.zeros(len(ids), 3, *SIZE),
            labels={name: torch.stack([LABELS[name]] * len(ids)) for name in names},
            present={name: torch.ones(len(ids), dtype=torch.bool) for name in names},
            meta=[Meta(id=image, size=SIZE, original_size=SIZE) for image in ids],
        )
        super().__init__([batch])
        self.dataset = self.Set(ids)


def scores_of(folder, names, ids=("x",)):
    tasks = [TASKS[name] for name in names]
    evaluator = SampleEvaluator(tasks)
    return evaluate_files(PredictionFiles.find(folder, tasks), Loader(ids, names), evaluator)


def write(folder, name, values, image="x"):
    path = folder / name / f"{image}.npy"
    path.parent.mkdir(exist_ok=True)
    np.save(path, values, allow_pickle=True)
    return path


def maps(name, dtype=np.float64, value=1.0):
    channels = {"normals": 3, "instance": 2}.get(name, 1)
    return np.full((channels, *SIZE), value).astype(dtype)


def with_one(values, value):
    values[..., 1, 2] = value
    return values


ONE = np.ones((1, *SIZE))
REFUSED = {
    "complex": ("depth", ONE.astype(complex), "found 1x2x3 of complex128"),
    "complex64 without imaginary part": ("normals", maps("normals", np.complex64), "of complex64"),
    "Boolean": ("depth", ONE.astype(bool), "found 1x2x3 of bool"),
    "Boolean probabilities": ("saliency", ONE.astype(bool), "found 1x2x3 of bool"),
    "Boolean classes": ("semseg", ONE[0].astype(bool), "takes class ids, integers .* found 2x3 of bool"),
    "real classes": ("semseg", ONE[0], "takes class ids"),
    "complex classes": ("semseg", ONE[0].astype(complex), "takes class ids"),
    "classes of spans of time": ("semseg", ONE[0].astype("timedelta64[s]"), "takes class ids"),
    "integer depth": ("depth", ONE.astype(np.int32), "found 1x2x3 of int32"),
    "8-bit depth": ("depth", ONE[0].astype(np.uint8), "found 2x3 of uint8"),
    "integer normals": ("normals", maps("normals", np.int64), "found 3x2x3 of int64"),
    "objects": ("depth", ONE.astype(object), "it holds Python objects"),
    "records": ("depth", ONE.astype([("z", "f4")]), "found 1x2x3 of"),
    "text": ("depth", ONE.astype(str), "found 1x2x3 of <U"),
    "dates": ("depth", ONE.astype("datetime64[s]"), "found 1x2x3 of datetime64"),
    "spans of time": ("depth", ONE.astype("timedelta64[s]"), "found 1x2x3 of timedelta64"),
    "raw bytes": ("depth", ONE.astype("V2"), "found 1x2x3 of .*V2"),
    "a single number": ("depth", np.array(1.0), "found a single number of float64"),
    "a single class": ("semseg", np.array(1), "found a single number of int64"),
    "one row": ("depth", np.ones(3), "found 3 of float64"),
    "a batch axis": ("depth", ONE[None], "found 1x1x2x3 of float64"),
    "nothing": ("depth", np.ones((1, 0, 3)), "the map is 1x0x3 of float64, but the label 2x3"),
    "NaN": ("depth", with_one(maps("depth"), math.nan), r"1 NaN of 6 values, the first at \[0, 1, 2\]"),
    "infinity": ("depth", with_one(maps("depth"), math.inf), "1 infinite of 6 values"),
    "minus infinity": ("normals", with_one(maps("normals"), -math.inf), "3 infinite of 18 values"),
    "NaN in a probability": ("edge", with_one(maps("edge"), math.nan), "1 NaN of 6 values"),
    "infinite probability": ("saliency", with_one(maps("saliency"), math.inf), "1 infinite of 6 values"),
    "float16 that overflowed": (
        "depth",
        np.full((1, *SIZE), np.inf, np.float16),
        "6 infinite .*float16",
    ),
    "beyond float32": ("depth", with_one(maps("depth"), -1e39), r"found -1e\+39, expected values that fit"),
    "long double": ("depth", maps("depth", np.longdouble, 1e39), r"found 1e\+39"),
    "logits": ("edge", with_one(maps("edge"), -0.5), "takes probabilities in 0..1, found -0.5"),
    "barely too large": ("edge", with_one(maps("edge"), 1.001), "takes probabilities in 0..1, found 1.001"),
    "zero normals": ("normals", maps("normals", value=0), "6 of 6 labelled pixels with vectors of zero"),
    "normals that underflow": ("normals", maps("normals", value=1e-300), "6 of 6 labelled pixels"),
    "parts of instances": ("instance", maps("instance", value=0.5), "6 of 6 instance ids with a fraction"),
    **{
        f"id {value}": (
            "semseg",
            np.full(SIZE, value).astype(kind),
            f"image 'x': iou: predicted class id {value} is outside",
        )
        for value, kind in ((7, "i8"), (256, "u2"), (300, "i8"), (65535, "u2"), (-1, "i4"), (2**40, "i8"))
    },
}


@pytest.mark.parametrize("what", problems.marked(REFUSED, [(problems.WIDE_PREDICTIONS, ["id "])]))
def test_other_content_is_refused_with_the_name_of_the_file(what, tmp_path):
    name, values, found = REFUSED[what]
    path = write(tmp_path, name, values)
    with pytest.raises(PredictionFilesError, match=found) as caught:
        scores_of(tmp_path, [name])
    assert str(path) in str(caught.value) or what.startswith("id ")
    assert isinstance(caught.value, ReportedError)


TAKEN = {
    "float16": ("depth", maps("depth", np.float16), 0),
    "other byte order": ("depth", maps("depth", ">f8"), 0),
    "column by column": ("depth", np.asfortranarray(maps("depth")), 0),
    "without channel axis": ("depth", maps("depth")[0], 0),
    "smallest numbers": ("depth", maps("depth", np.float32, 1e-45), 1),
    "minus zero": ("depth", maps("depth", value=-0.0), 1),
    "below zero": ("depth", maps("depth", value=-3), 1),
    "ids of 8 bits": ("semseg", np.zeros(SIZE, np.uint8), 1),
    "ids of 64 bits": ("semseg", np.zeros(SIZE, np.uint64), 1),
    "ids in the other byte order": ("semseg", np.zeros(SIZE, ">i2"), 1),
    "minus zero as a probability": ("saliency", maps("saliency", value=-0.0), 0),
    "normals of any length": ("normals", maps("normals", value=1e-6), 0),
}
HEADLINE = {"depth": "rmse", "semseg": "pixel_accuracy", "saliency": "mae", "normals": "mean"}


@pytest.mark.parametrize("what", TAKEN)
def test_unusual_but_sound_files_are_scored(what, tmp_path):
    name, values, expected = TAKEN[what]
    write(tmp_path, name, values)
    assert scores_of(tmp_path, [name])[name][HEADLINE[name]] == pytest.approx(expected, abs=1e-6)


def picture(mode):
    file = io.BytesIO()
    Image.new(mode, SIZE[::-1]).save(file, format="PNG")
    return file.getvalue()


def arrays(save, **options):
    file = io.BytesIO()
    save(file, np.ones((1, *SIZE)), **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "suffix", "content", "found"),
    [
        (
            "edge",
            ".png",
            picture("1"),
            "8- or 16-bit gray images or float maps, found 2x3 of bool",
        ),
        ("semseg", ".png", picture("1"), "takes class ids, .* found 2x3 of bool"),
        ("saliency", ".png", picture("RGB"), "found 2x3x3 of uint8"),
        ("semseg", ".png", picture("RGBA"), "found 2x3x4 of uint8"),
        ("depth", ".png", picture("L"), r"depth takes float maps \(.npy\), found 2x3 of uint8"),
        ("normals", ".png", picture("RGB"), r"normals takes float maps \(.npy\)"),
        ("edge", ".png", picture("L")[:40], "is truncated"),
        ("edge", ".png", b"", "the file is empty"),
        ("depth", ".npy", b"", "the file is empty"),
        ("depth", ".npy", arrays(np.save)[:-9], "promises 48 bytes of values"),
        ("depth", ".npy", arrays(np.savez), "it is a zip archive"),
        ("depth", ".npy", picture("L"), "not a plain NumPy array"),
        ("depth", ".npy", b"1.0 2.0\n", "not a plain NumPy array"),
    ],
)
def test_other_files_are_refused_by_name(name, suffix, content, found, tmp_path):
    path = tmp_path / name / f"x{suffix}"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(PredictionFilesError, match=found) as caught:
        scores_of(tmp_path, [name])
    assert str(path) in str(caught.value)


def test_damaged_files_are_named_too_where_a_manifest_has_their_sizes(tmp_path):
    path = tmp_path / "depth" / "x.npy"
    path.parent.mkdir()
    (tmp_path / "predictions.json").write_text('{"sizes": {"x": [2, 3]}}')
    for content in (b"", arrays(np.savez)):
        path.write_bytes(content)
        refused = r"x\.npy: (the file is empty|not a plain NumPy array)"
        with pytest.raises(PredictionFilesError, match=refused):
            scores_of(tmp_path, ["depth"])
    write(tmp_path, "depth", np.array(1.0))
    with pytest.raises(PredictionFilesError, match=r"x\.npy is a single number instead of 2x3"):
        scores_of(tmp_path, ["depth"])


def test_all_sick_files_of_all_tasks_are_named_before_any_score(tmp_path):
    bad = {("depth", "a"): math.nan, ("normals", "c"): 0.0, ("edge", "b"): 2.0, ("normals", "a"): math.inf}
    for name in ("depth", "normals", "edge"):
        for image in "abc":
            write(tmp_path, name, maps(name, value=bad.get((name, image), 1.0)), image)
    write(tmp_path, "depth", maps("depth", complex), "b")
    with pytest.raises(PredictionFilesError) as caught:
        scores_of(tmp_path, ["depth", "normals", "edge"], "abc")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the predictions cannot be scored:"
    named = {tuple(line.split(":")[0].removesuffix(".npy").split("/")[-2:]) for line in lines[1:]}
    assert named == {*bad, ("depth", "b")}
    assert len(lines) == 6
    assert sum("Look at the code that wrote the file" in line for line in lines) == 3


CONFIG = """
protocol = dict(id="mine", tasks=dict(depth={}))
test_data = dict(
    dataset=dict(type="FolderDataset", root="ROOT", labels=dict(depth="depth"), partial=True), batch_size=2
)
"""


def prepare(folder, labels):
    """Images, labels of depth (None = no file), predictions of -1, and the arguments of `mtvision score`."""
    for name in ("images", "depth", "out"):
        (folder / name).mkdir()
    for image, label in labels.items():
        Image.new("RGB", (3, 2)).save(folder / "images" / f"{image}.png")
        write(folder / "out", "depth", maps("depth", value=-1.0), image)
        if label is not None:
            write(folder, "depth", np.full(SIZE, label, np.float32), image)
    config = folder / "mine.py"
    config.write_text(CONFIG.replace("ROOT", str(folder)))
    return [str(folder / "out"), "--config", str(config), "--json", str(folder / "scores.json")]


def test_score_says_what_was_not_scored(tmp_path, capsys):
    arguments = prepare(tmp_path, {"a": 1.0, "b": math.nan, "c": None, "d": 1.0, "e": math.nan})
    assert call("score", arguments) == 0
    notes = [
        "Not scored, of 5 images: depth 2 (no labelled pixel), depth 1 (no label).",
        "depth: 12 of 12 scored pixels, in 2 of 4 images, are predicted at or below zero. They count as "
        "1e-09, in abs_err and rel_err as they are.",
    ]
    assert json.loads((tmp_path / "scores.json").read_text())["notes"] == notes
    said = capsys.readouterr().err
    assert all(f"{note}\n" in said for note in notes)


def test_score_without_any_labelled_pixel_ends_with_one_message(tmp_path, capsys):
    assert call("score", prepare(tmp_path, {"a": math.nan, "b": None})) == 2
    said = capsys.readouterr().err
    assert "score: evaluation: task 'depth' has no labelled pixel in 2 images (1 have a label map)" in said
    assert not (tmp_path / "scores.json").exists()


def test_score_of_a_sick_file_ends_with_one_message(tmp_path, capsys):
    arguments = prepare(tmp_path, {"a": 1.0, "b": 1.0})
    path = write(tmp_path / "out", "depth", maps("depth", value=math.nan), "b")
    assert call("score", arguments) == 2
    said = capsys.readouterr().err
    assert f"{path}: found 6 NaN of 6 values, the first at [0, 0, 0], expected finite" in said
    assert "Traceback" not in said
    assert not (tmp_path / "scores.json").exists()
