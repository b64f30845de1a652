"""`mtvision new` writes files that work: their tests pass, and a run of them trains, scores and draws."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import warm

from mtvision.cli.catalogue.new import KINDS, names_of
from mtvision.cli.main import command_line

ROOT = Path(__file__).parents[2]
NAMES = {
    "decoder": "OwnDecoder",
    "balancer": "OwnRule",
    "metric": "OwnError",
    "dataset": "OwnRooms",
    "task": "albedo",
}
CONFIG = """
plugins = ["./own_decoder.py", "./own_rooms.py", "./albedo.py", "./own_rule.py"]
protocol = dict(id="rooms", tasks=dict(albedo=dict()))
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet10t", channels=(4, 8, 12, 16), stem_width=4),
    decoder=dict(type="OwnDecoder", width=8),
    head=dict(type="ConvHead"),
)
balancer = dict(type="OwnRule")
train_data = dict(dataset=dict(type="OwnRooms", root="data", transforms="light"), batch_size=2)
test_data = dict(dataset=dict(type="OwnRooms", root="data", split="test"), batch_size=2)
optimizer = dict(type="AdamW", lr=1e-3)
training = dict(iterations=3)
evaluation = dict(pictures=1, constant_predictor=4)
"""


def python(folder, *arguments):
    known = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    return warm.run(arguments, cwd=folder, variables=known, path=[ROOT, folder])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for kind in KINDS:
        assert command_line(["new", kind, NAMES[kind], "--folder", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_their_tests_pass(lab):
    done = python(lab, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", lab, lab)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in done.stdout


@pytest.mark.slow
def test_a_run_of_them_trains_scores_draws_and_is_tabulated(lab):
    """One config beside them, no other file: the known answer for a task of three channels."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("image", "albedo"):
            (lab / "data" / split / name).mkdir(parents=True)
        for index in range(4):
            image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(lab / "data" / split / "image" / f"{index}.png"), image)
            np.save(lab / "data" / split / "albedo" / f"{index}.npy", (image / 255).astype(np.float32))
    (lab / "own.py").write_text(CONFIG)
    done = python(lab, "-m", "mtvision.cli.main", "train", "own.py", "--work-dir", "run")
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((lab / "run" / "record.json").read_text())
    assert record["missing"] == record["failures"] == []
    assert sorted(item["name"] for item in record["plugins"]) == [
        "albedo",
        "own_decoder",
        "own_rooms",
        "own_rule",
    ]
    assert set(record["scores"]["albedo"]) == {"rmse"}
    assert len(list((lab / "run" / "pictures").glob("*.png"))) == 1
    table = python(lab, "-m", "mtvision.cli.main", "table", "run", "--format", "markdown")
    assert table.returncode == 0, table.stderr
    assert "albedo RMSE" in table.stdout


def test_the_files_are_formatted_and_say_how_to_use_them(tmp_path, capsys):
    for kind in KINDS:
        assert command_line(["new", kind, NAMES[kind], "--folder", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        module = names_of(kind, NAMES[kind])["module"]
        assert f'plugins = ["./{module}.py"]' in said
        assert f"python -m pytest {tmp_path / f'test_{module}.py'}" in said
    for file in tmp_path.glob("*.py"):
        text = file.read_text()
        assert "$" not in text, file.name
        assert max(map(len, text.splitlines())) <= 110, file.name
        compile(text, file.name, "exec")


def test_existing_files_stay(tmp_path, capsys):
    (tmp_path / "test_own_decoder.py").write_text("mine")
    assert command_line(["new", "decoder", "OwnDecoder", "--folder", str(tmp_path)]) == 2
    assert "test_own_decoder.py exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_own_decoder.py"]
    assert command_line(["new", "decoder", "OwnDecoder", "--folder", str(tmp_path), "--overwrite"]) == 0
    assert "check_decoder" in (tmp_path / "test_own_decoder.py").read_text()


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("decodr", "OwnDecoder", "Did you mean 'decoder'"),
        ("decoder", "own_decoder", "a class is written like OwnDecoder"),
        ("decoder", "2D", "use letters, digits and underscores"),
        ("task", "class", "use letters, digits and underscores"),
        ("decoder", "ParallelDecoder", "decoder 'ParallelDecoder' is in the suite already"),
        ("task", "depth", "task 'depth' is in the suite already"),
        ("metric", "Depth", "metric 'depth' is in the suite already"),
        ("balancer", "Json", "json.py would hide the module 'json' of Python"),
        ("dataset", "Torch", "torch.py would hide the module 'torch' of Python"),
    ],
)
def test_names_that_cannot_be(kind, name, words, tmp_path, capsys):
    assert command_line(["new", kind, name, "--folder", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "key"), [("MyDecoder", "my_decoder"), ("RGBDNet", "rgbd_net"), ("Vit2Decoder", "vit2_decoder")]
)
def test_files_are_named_in_lower_case(name, key):
    assert names_of("decoder", name) == {"name": name, "key": key, "module": key}
