"""Predictions on disk: nothing is lost, nothing is mixed up, and mistakes are named all at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import discs
import numpy as np
import pytest
import torch
from PIL import Image

from mtvision.cli.main import call
from mtvision.core.naming import UnknownNameError
from mtvision.data.synthetic.dataset import SyntheticScenes
from mtvision.evaluation.prediction_files import (
    PredictionFiles,
    PredictionFilesError,
    PredictionWriter,
    read_manifest,
)
from mtvision.metrics.boundary import evaluate_folders, find_pairs, get_boundary_protocol
from mtvision.metrics.depth import Depth
from mtvision.protocols import SYNTHETIC
from mtvision.protocols.tasks import depth, edge, saliency, semseg

CONFIG = """
protocol = "synthetic-scenes"
provenance = "smoke"
model = dict(
    backbone=dict(type="DropoutNet"),
    decoder=dict(type="ParallelDecoder", width=8),
    head=dict(type="ConvHead"),
)
PAD = [dict(type="Normalize"), dict(type="PadImage", size=(56, 64))]
train_data = dict(dataset=dict(type="SyntheticScenes", split="train", length=2, size=(40, 56)), batch_size=2)
test_data = dict(
    dataset=dict(type="SyntheticScenes", split="test", length=5, size=(40, 56), transforms=PAD), batch_size=2
)
optimizer = dict(type="AdamW", lr=1e-2)
training = dict(iterations=2, checkpoint_interval=2)
evaluation = dict(pictures=0, metric_options=dict(edge=dict(thresholds=9)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run with its predictions in both formats."""
    folder = tmp_path_factory.mktemp("run")
    config = folder / "scenes.py"
    config.write_text(CONFIG)
    assert call("train", [str(config), "--work-dir", str(folder / "work")]) == 0
    for name in ("exact", "8bit"):
        assert call("test", test_arguments(folder, folder / name, "--prediction-format", name)) == 0
    return folder


def test_arguments(folder, out, *more):
    checkpoint = folder / "work" / "iter_2.pth"
    again = ["--work-dir", str(folder / "again"), "--save-predictions", str(out)]
    return [str(folder / "scenes.py"), str(checkpoint), *again, *more]


test_arguments.__test__ = False


def score(run, name, tmp_path, *more):
    out = tmp_path / "scores.json"
    code = call("score", [str(run / name), "--config", str(run / "scenes.py"), "--json", str(out), *more])
    return json.loads(out.read_text()) if code == 0 else None


@pytest.mark.slow
def test_exact_files_give_the_scores_of_the_run_to_the_last_digit(run, tmp_path, capsys):
    record = json.loads((run / "again" / "record.json").read_text())
    expected = record["scores"]
    found = score(run, "exact", tmp_path)
    assert found["scores"] == expected
    assert found["notes"] == record["notes"] != []
    assert set(expected) == set(SYNTHETIC.task_names)
    assert found["images"] == 5
    assert found["predictions"]["format"] == "exact"
    assert "mIoU" in capsys.readouterr().out
    assert call("score", [str(run / "exact"), "--config", str(run / "scenes.py"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == expected  # JSON and nothing else


@pytest.mark.slow
def test_scores_of_files_survive_what_fails_beside_them(run, tmp_path, monkeypatch, capsys):
    expected = json.loads((run / "again" / "record.json").read_text())["scores"]
    arguments = [str(run / "exact"), "--config", str(run / "scenes.py"), "--json", str(tmp_path / "out.json")]

    def fail(*_):
        raise RuntimeError("too few images")

    monkeypatch.setattr("mtvision.cli.results.score._intervals", fail)
    monkeypatch.setattr("mtvision.cli.results.score.render_table", fail)
    assert call("score", [*arguments, "--bootstrap", "5"]) == 1
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["scores"], found["intervals"]) == (expected, {})
    assert found["missing"] == ["intervals: RuntimeError: too few images; score the folder again"]
    assert call("score", arguments) == 0  # a table that fails is no part of the result
    assert json.loads((tmp_path / "out.json").read_text())["missing"] == []


def test_scores_of_files_that_cannot_be_right_are_said_and_not_written(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Depth, "score", lambda self, sums: {"rmse": -5.0, "abs_rel": 0.25})
    arguments = [str(run / "exact"), "--config", str(run / "scenes.py"), "--json", str(tmp_path / "out.json")]
    assert call("score", arguments) == 1
    err = capsys.readouterr().err
    assert "scores.depth.rmse: found -5.0, expected 0 to no upper bound" in err
    assert '"abs_rel": 0.25' in err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
def test_8bit_files_change_only_what_they_round(run, tmp_path):
    expected = score(run, "exact", tmp_path)["scores"]
    found = score(run, "8bit", tmp_path)["scores"]
    assert {name: found[name] for name in found if name != "saliency"} == {
        name: expected[name] for name in expected if name != "saliency"
    }
    assert found["saliency"]["mae"] == pytest.approx(expected["saliency"]["mae"], abs=1 / 255)


@pytest.mark.slow
def test_layout_manifest_and_size_without_padding(run):
    names = sorted(path.name for path in (run / "8bit" / "edge").iterdir())
    assert names == [f"test-00000{index}.png" for index in range(5)]
    exact = np.load(run / "exact" / "edge" / "test-000003.npy")
    coarse = np.array(Image.open(run / "8bit" / "edge" / "test-000003.png"))
    assert exact.shape == (1, 40, 56)
    assert np.array_equal(coarse, np.floor(exact[0] * 255))
    assert np.array(Image.open(run / "exact" / "semseg" / "test-000000.png")).dtype == np.uint8
    manifest = json.loads((run / "exact" / "predictions.json").read_text())
    assert manifest["complete"]
    assert manifest["sizes"]["test-000004"] == [40, 56]
    assert manifest["protocol"] == "synthetic-scenes"
    assert len(manifest["checkpoint"]["sha256"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "8bit"])
def test_edge_files_give_the_same_odsf_in_the_boundary_tool(run, name, tmp_path):
    truth, labels = tmp_path / "truth", tmp_path / "labels"
    truth.mkdir()
    labels.mkdir()
    dataset = SyntheticScenes(split="test", length=5, size=(40, 56))
    for index, identity in enumerate(dataset.ids):
        marked = dataset.read(index).labels["edge"][..., 0]
        np.save(truth / f"{identity}.npy", marked)
        np.save(labels / f"{identity}.npy", marked.astype(np.uint8))
    out = tmp_path / "odsf.json"
    arguments = [str(run / name / "edge"), str(truth), "--protocol", "label-map", "--thresholds", "9"]
    assert call("evaluate-boundaries", [*arguments, "--workers", "1", "--json", str(out)]) == 0
    expected = json.loads((run / "again" / "record.json").read_text())["scores"]["edge"]
    assert json.loads(out.read_text())["scores"] == pytest.approx(expected, abs=1e-15)
    seism = get_boundary_protocol("seism-nyud").with_thresholds(5)
    exact, rounded = (
        evaluate_folders(find_pairs(run / kind / "edge", labels, seism, subset=True), seism)
        for kind in ("exact", "8bit")
    )
    assert exact.summary.scores() == rounded.summary.scores()


@pytest.mark.slow
def test_bootstrap_intervals_hold_the_score(run, tmp_path, capsys):
    found = score(run, "exact", tmp_path, "--bootstrap", "20")
    for task, names in found["intervals"].items():
        for name, (low, high) in names.items():
            assert low <= high, (task, name)
    low, high = found["intervals"]["depth"]["rmse"]
    assert low <= found["scores"]["depth"]["rmse"] <= high
    assert "95 % intervals over 5 images, 20 resamples" in capsys.readouterr().out


@pytest.mark.slow
def test_predictions_of_another_code_base_need_no_model_and_no_manifest(run, tmp_path, capsys):
    config = tmp_path / "labels_only.py"
    lines = CONFIG.splitlines()
    start = lines.index('optimizer = dict(type="AdamW", lr=1e-2)')
    config.write_text(
        "\n".join([lines[1], *[line for line in lines[8:start] if not line.startswith("train_data")]])
    )
    theirs = tmp_path / "theirs"
    for task in ("semseg", "depth"):
        (theirs / task).mkdir(parents=True)
    for path in (run / "exact" / "semseg").iterdir():
        Image.fromarray(np.array(Image.open(path)).astype(np.uint16)).save(theirs / "semseg" / path.name)
    for path in (run / "exact" / "depth").iterdir():
        np.save(theirs / "depth" / path.name, np.load(path)[0].astype(np.float64))
    (theirs / "pictures").mkdir()
    out = tmp_path / "scores.json"
    assert call("score", [str(theirs), "--config", str(config), "--json", str(out)]) == 0
    expected = json.loads((run / "again" / "record.json").read_text())["scores"]
    found = json.loads(out.read_text())
    assert found["scores"] == {name: expected[name] for name in ("semseg", "depth")}
    assert found["predictions"] is None
    said = capsys.readouterr().err
    assert "no such folder: normals, edge, saliency, human_parts" in said.replace("\n", " ")
    assert "pictures" in said


@pytest.mark.slow
def test_all_wrong_files_are_named_in_one_error(run, tmp_path, capsys):
    bad = tmp_path / "bad"
    (bad / "semseg").mkdir(parents=True)
    for path in (run / "exact" / "semseg").iterdir():
        (bad / "semseg" / path.name).write_bytes(path.read_bytes())
    (bad / "semseg" / "test-000001.png").unlink()
    (bad / "semseg" / "train-7.png").write_bytes(b"")
    arguments = [str(bad), "--config", str(run / "scenes.py")]
    assert call("score", arguments) == 2
    said = capsys.readouterr().err
    assert "missing (1 of 5): test-000001" in said
    assert "not of this split (1 of 5): train-7.png" in said
    (bad / "semseg" / "train-7.png").unlink()
    Image.fromarray(np.zeros((40, 55), np.uint8)).save(bad / "semseg" / "test-000001.png")
    (bad / "semseg" / "test-000003.png").write_bytes(b"no picture")
    Image.fromarray(np.full((40, 56), 77, np.uint8)).save(bad / "semseg" / "test-000000.png")
    assert call("score", arguments) == 2
    said = capsys.readouterr().err
    assert "test-000001.png: the map is 40x55 of uint8, but the label 40x56" in said
    assert "test-000003.png: not a readable picture" in said
    assert "image 'test-000000': iou: predicted class id 77 is outside 0..20" in said


@pytest.mark.slow
def test_an_earlier_folder_is_refused_and_the_same_run_goes_on(run, tmp_path, capsys):
    assert call("test", test_arguments(run, run / "exact", "--prediction-format", "8bit")) == 2
    assert "they differ in format, tasks" in capsys.readouterr().err
    out = tmp_path / "again"
    assert call("test", test_arguments(run, out)) == 0
    kept = out / "depth" / "test-000000.npy"
    before = kept.stat().st_mtime_ns
    (out / "depth" / "test-000002.npy").unlink()
    manifest = json.loads((out / "predictions.json").read_text())
    (out / "predictions.json").write_text(json.dumps({**manifest, "complete": False, "sizes": {}}))
    assert call("score", [str(out), "--config", str(run / "scenes.py")]) == 2
    assert "cut off" in capsys.readouterr().err
    assert call("test", test_arguments(run, out)) == 0
    assert kept.stat().st_mtime_ns == before
    assert (out / "depth" / "test-000002.npy").is_file()
    assert json.loads((out / "predictions.json").read_text()) == manifest
    assert call("test", test_arguments(run, out, "--prediction-format", "8bit", "--overwrite")) == 0
    assert {path.suffix for path in (out / "edge").iterdir()} == {".png"}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    assert call("test", test_arguments(run, tmp_path / "full")) == 2
    assert "no predictions.json" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_what_one_writes(run, tmp_path):
    support = Path(discs.__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(support / "run_tool.py"), "test", *test_arguments(run, tmp_path / "two")]
    environment = {**os.environ, "PYTHONPATH": str(support), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one = {path.relative_to(run / "exact") for path in (run / "exact").rglob("*")}
    assert {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*")} == one
    for path in one:
        if path.name == "predictions.json":
            assert (tmp_path / "two" / path).read_text() == (run / "exact" / path).read_text()


TASKS = (semseg([str(index) for index in range(300)]), depth(), edge(), saliency())


def test_every_value_survives(tmp_path):
    generator = torch.Generator().manual_seed(0)
    maps = {
        "semseg": torch.randint(0, 300, (6, 7), generator=generator),
        "depth": torch.randn(1, 6, 7, generator=generator) * 1e-30,
        "edge": torch.rand(1, 6, 7, generator=generator),
        "saliency": torch.rand(1, 6, 7, generator=generator),
    }
    writer = PredictionWriter(tmp_path / "out", TASKS, identity={"protocol": "mine"})
    writer("city/a.b", maps)
    writer.finish()
    files = PredictionFiles.find(tmp_path / "out", TASKS)
    files.require(["city/a.b"])
    for task in TASKS:
        found = files.read(task, "city/a.b", (6, 7))
        assert found.dtype == maps[task.name].dtype
        assert torch.equal(found, maps[task.name])
    assert not list((tmp_path / "out").rglob("*.part"))
    np.save(tmp_path / "out" / "depth" / "city" / "a.b.npy", np.zeros((6, 9)))
    with pytest.raises(PredictionFilesError, match=r"a\.b\.npy is 6x9 instead of 6x7"):
        files.require(["city/a.b"])


def test_8bit_round_trip_is_exact_on_the_256_levels(tmp_path):
    levels = (torch.arange(256, dtype=torch.float64) / 255).float().reshape(1, 16, 16)
    writer = PredictionWriter(tmp_path, (edge(),), identity={}, file_format="8bit")
    writer("a", {"edge": levels})
    writer.finish()
    files = PredictionFiles.find(tmp_path, (edge(),))
    assert torch.equal(files.read(edge(), "a", (16, 16)), levels)


def test_manifest_names_its_version_and_a_newer_one_is_refused(tmp_path):
    writer = PredictionWriter(tmp_path, (depth(),), identity={})
    writer("a", {"depth": torch.zeros(1, 2, 2)})
    writer.finish()
    path = tmp_path / "predictions.json"
    manifest = json.loads(path.read_text())
    assert manifest["version"] == 1
    assert read_manifest(tmp_path) == manifest
    for content in ({**manifest, "version": 2}, [manifest]):
        path.write_text(json.dumps(content))
        with pytest.raises(PredictionFilesError, match="not a manifest of version 1 or older"):
            read_manifest(tmp_path)
    path.unlink()
    assert read_manifest(tmp_path) is None


def test_a_manifest_of_another_writer_may_leave_out_whether_it_is_complete(tmp_path):
    (tmp_path / "depth").mkdir()
    (tmp_path / "predictions.json").write_text("{}")
    assert PredictionFiles.find(tmp_path, [depth()]).manifest == {}
    (tmp_path / "predictions.json").write_text('{"complete": false}')
    with pytest.raises(PredictionFilesError, match="cut off"):
        PredictionFiles.find(tmp_path, [depth()])


def test_five_missing_images_are_named_and_the_others_counted(tmp_path):
    writer = PredictionWriter(tmp_path, (depth(),), identity={})
    writer("here", {"depth": torch.zeros(1, 2, 2)})
    writer.finish()
    files = PredictionFiles.find(tmp_path, (depth(),))
    with pytest.raises(PredictionFilesError, match=r"\(5 of 6\): a, b, c, d, e$"):
        files.require(["here", *"abcde"])
    with pytest.raises(PredictionFilesError, match=r"\(7 of 8\): a, b, c, d, e … and 2 more"):
        files.require(["here", *"abcdefg"])


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(UnknownNameError, match="Known: 8bit, exact"):
        PredictionWriter(tmp_path, TASKS, identity={}, file_format="8-bit")
    with pytest.raises(FileNotFoundError, match="expected one or more of semseg"):
        PredictionFiles.find(tmp_path, TASKS)
    writer = PredictionWriter(tmp_path / "out", (depth(),), identity={})
    with pytest.raises(ValueError, match="cannot be a file name"):
        writer("../a", {"depth": torch.zeros(1, 2, 2)})
    (tmp_path / "foreign" / "edge").mkdir(parents=True)
    np.save(tmp_path / "foreign" / "edge" / "a.npy", np.full((2, 2), 3.0))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "foreign" / "edge" / "b.png")
    files = PredictionFiles.find(tmp_path / "foreign", TASKS)
    with pytest.raises(ValueError, match="probabilities in 0..1"):
        files.read(edge(), "a", (2, 2))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "foreign" / "edge" / "a.png")
    with pytest.raises(PredictionFilesError, match=r"both a\.npy and a\.png"):
        PredictionFiles.find(tmp_path / "foreign", TASKS)
