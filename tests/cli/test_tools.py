"""The tools as a person uses them: train, test, predict, cost, browse; and what they say to a mistake."""

from __future__ import annotations

import json

import cv2
import discs
import numpy as np
import pytest

from mtvision.cli.machine import benchmark
from mtvision.cli.main import COMMANDS, call, command_line
from mtvision.report.record import Record
from mtvision.report.table import render_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = discs.write_config(folder)
    options = ["training.iterations=4", "training.val_interval=0"]
    assert call("train", [str(config), "--work-dir", str(folder / "work"), "--cfg-options", *options]) == 0
    return folder


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    return path


def test_training_leaves_everything_behind(run):
    work = run / "work"
    names = {path.name for path in work.iterdir()}
    assert {"config.py", "iter_4.pth", "losses.jsonl", "record.json", "table.md", "pictures"} <= names
    assert len(list((work / "pictures").glob("*.png"))) == 1
    assert "miou" in (work / "table.md").read_text().lower()


def test_test_reproduces_the_scores_of_the_training_run(run, capsys):
    arguments = [
        str(run / "discs_config.py"),
        str(run / "work" / "iter_4.pth"),
        "--work-dir",
        str(run / "again"),
    ]
    assert call("test", [*arguments, "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["scores"] == json.loads((run / "work" / "record.json").read_text())["scores"]


def test_predict_writes_panels_and_raw_maps_at_the_images_size(run, image, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(run / "work" / "iter_4.pth"), str(image), "--out", str(out)]
    assert call("predict", [*arguments, "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["outputs"] == [str(out / "photo.png"), str(out / "photo.npz")]
    maps = np.load(out / "photo.npz", allow_pickle=False)
    assert maps["semseg"].shape == (50, 70)
    assert maps["semseg"].dtype == np.uint8
    assert maps["depth"].shape == (1, 50, 70)
    assert (maps["depth"] >= 0).all()
    assert cv2.imread(str(out / "photo.png")) is not None


def test_predict_on_a_folder_and_a_video(run, image, tmp_path):
    arguments = [str(run / "work" / "iter_4.pth")]
    folder = ["--save", "panel", "--out", str(tmp_path / "a")]
    assert call("predict", [*arguments, str(image.parent), *folder]) == 0
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["photo.png"]
    video = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for value in (0, 100, 200):
        writer.write(np.full((48, 64, 3), value, dtype=np.uint8))
    writer.release()
    assert call("predict", [*arguments, str(video), "--out", str(tmp_path / "b")]) == 0
    film = cv2.VideoCapture(str(tmp_path / "b" / "film.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_cost_as_json(run, capsys):
    config = str(run / "discs_config.py")
    assert call("cost", [config, "--shape", "32", "32", "--json", "--no-latency"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert call("cost", [config, "--shape", "64", "64", "--json", "--meta"]) == 0
    larger = json.loads(capsys.readouterr().out)
    assert larger["parameters"]["total"] == whole["parameters"]["total"]
    assert larger["macs"]["total"] == pytest.approx(4 * whole["macs"]["total"])
    assert sum(whole["parameters"]["parts"].values()) == whole["parameters"]["total"]


def test_browse_draws_the_training_samples(run, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert call("browse-dataset", [str(run / "discs_config.py"), "--count", "3", "--out", str(out)]) == 0
    assert "3 of 12 samples" in capsys.readouterr().out
    assert cv2.imread(str(out)).std() > 10


MISTAKES = {
    "no such input": (["predict", "CHECKPOINT", "nowhere", "--out", "OUT"], "nowhere does not exist"),
    "no such checkpoint": (["test", "CONFIG", "nowhere.pth"], "nowhere.pth does not exist"),
    "no such config": (["train", "nowhere.py"], "nowhere.py does not exist"),
    "unknown option": (["train", "CONFIG", "--cfg-options", "trainin.x=1"], "Did you mean 'training'"),
    "truncated checkpoint": (["test", "CONFIG", "BROKEN"], "truncated or not a checkpoint"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(run, tmp_path, capsys, arguments, message):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    places = {
        "CONFIG": run / "discs_config.py",
        "CHECKPOINT": run / "work" / "iter_4.pth",
        "BROKEN": tmp_path / "broken.png",
        "OUT": tmp_path / "out",
    }
    assert command_line([str(places.get(item, item)) for item in arguments]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert "Traceback" not in text


def test_help_lists_every_command(capsys):
    assert command_line(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert command_line(["trian"]) == 2
    assert "Did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line([command, "--help"])
    assert caught.value.code == 0
    assert f"mtvision {command}" in capsys.readouterr().out


def test_benchmark_prints_json_and_nothing_else(monkeypatch, capsys):
    def same() -> dict:
        """Two equal things."""
        return {"one": lambda: None, "other": lambda: None}

    monkeypatch.setitem(benchmark.SUITES, "same", same)
    assert call("benchmark", ["same", "--repeats", "1", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["suites"]["same"]) == {"one", "other"}


def test_status_of_a_training_run_goes_to_stderr(run, capsys, tmp_path):
    options = ["--cfg-options", "training.iterations=1", "training.val_interval=0"]
    assert call("train", [str(run / "discs_config.py"), "--work-dir", str(tmp_path / "run"), *options]) == 0
    out, err = capsys.readouterr()
    assert "iter 1/1" in err
    assert "M parameters, to" in err
    assert out == render_table([Record.load(tmp_path / "run" / "record.json")], format="terminal") + "\n"
