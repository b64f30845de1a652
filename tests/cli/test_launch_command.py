"""`mtvision launch`: a whole grid from the command line, pretended and, once, real."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import discs
import pytest
import torch
from report_records import TASKS
from sweep_stage import Stage, grid

from mtvision.cli.main import call
from mtvision.report.record import Record, find_records
from mtvision.runtime import atomic
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.sweep.local import child_environment

BALANCERS = "balancer=Uncertainty,FixedWeights"


class Launch:
    """A prepared grid and the command that launches it."""

    def __init__(self, folder, capsys, *settings, seeds=(0, 1, 2)):
        self.folder, self.capsys = folder, capsys
        self.stage = Stage(folder, grid(folder, *settings, seeds=seeds))
        self.arguments = [
            str(folder / "discs_config.py"), "--seeds", *map(str, seeds), "--work-dir", str(folder / "work"),
            *(word for setting in settings for word in ("--set", setting)),
            "--train-command", shlex.join(self.stage.command),
        ]  # fmt: skip

    def __call__(self, *more):
        code = call("launch", [*self.arguments, *more])
        out = self.capsys.readouterr()
        return code, out.out + out.err

    def rewrite(self, index, **changes):
        """Change a prepared record."""
        path = self.stage.folder / f"{self.stage.runs[index].name}.json"
        replace(Record.load(path), **changes).save(path)


@pytest.fixture
def launch(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return Launch(tmp_path, capsys, BALANCERS)


@pytest.mark.slow
def test_a_grid_ends_with_its_records_mean_and_spread(launch, tmp_path):
    code, out = launch("--results", str(tmp_path / "results"), "--workers", "2")
    assert code == 0, out
    assert "6 runs: 0 finished, 6 to train (0 from a checkpoint)." in out
    assert "[6/6] finished discs_config_" in out
    names = sorted(path.stem for path in (tmp_path / "results").iterdir())
    assert names == sorted(run.name for run in launch.stage.runs)
    records = find_records([tmp_path / "results"])
    for row in ("Uncertainty", "FixedWeights"):
        values = [r.scores["semseg"]["miou"] * 100 for r in records if r.method.endswith(row)]
        printed = re.search(rf"discs_config, {row} +tiny +(\S+) ± (\S+)", out).groups()
        assert printed == (f"{mean(values):.2f}", f"{stdev(values):.2f}")
    assert "Differences from discs_config, Uncertainty" in out
    assert "With 3 seeds the sign-flip test cannot go below 0.25" in out
    assert "**44.00** ± 1.00" in (tmp_path / "work" / "summary.md").read_text()
    before = launch.stage.calls()
    code, again = launch("--results", str(tmp_path / "results"))
    assert (code, launch.stage.calls()) == (0, before)
    assert "6 runs: 6 finished, 0 to train" in again
    summary = [text[text.index("Synthetic scenes") : text.index("6 runs:")] for text in (out, again)]
    assert summary[0] == summary[1]  # stdout, which comes first


@pytest.mark.slow
def test_records_elsewhere_join_the_results(launch, tmp_path):
    assert launch()[0] == 0
    assert launch("--results", str(tmp_path / "results"))[0] == 0
    assert len(list((tmp_path / "results").iterdir())) == 6


@pytest.mark.slow
def test_failures_are_listed_with_their_logs(launch, tmp_path):
    launch.stage.plan(1, "fail")
    code, out = launch("--reference", "discs_config, FixedWeights")
    assert code == 1
    run = launch.stage.runs[1]
    assert "1 of 6 runs have no whole record; run the same command to continue:" in out
    assert f"{run.name}: exit code 3: mtvision train: the loss is not finite\n    log: {run.log}" in out
    assert "Differences from discs_config, FixedWeights" in out  # the summary is of what there is
    code, out = launch()
    assert (code, "6 runs: 5 finished, 1 to train" in out) == (0, True)


@pytest.mark.slow
def test_a_record_that_is_not_whole_counts_and_is_made_again(launch, tmp_path):
    run, whole = launch.stage.runs[0], Record.load(launch.stage.folder / f"{launch.stage.runs[0].name}.json")
    launch.rewrite(0, missing=["cost: RuntimeError: no kernel"], cost=None)
    code, out = launch("--results", str(tmp_path / "results"))
    assert code == 1
    assert "1 of 6 runs have no whole record; run the same command to continue:" in out
    assert f"{run.name}: its record is not whole: cost: RuntimeError: no kernel" in out
    assert re.search(r"discs_config, Uncertainty +tiny +41.00 ± 1.00", out)  # its scores are in the summary
    assert len(list((tmp_path / "results").iterdir())) == 6
    assert "6 runs: 6 finished, 0 to train" in launch()[1]  # without its checkpoint it would train anew
    (run.work_dir / "iter_12.pth").touch()
    whole.save(launch.stage.folder / f"{run.name}.json")
    code, out = launch("--results", str(tmp_path / "results"))
    assert (code, "6 runs: 5 finished, 1 to train (1 from a checkpoint)" in out) == (0, True)
    assert Record.load(tmp_path / "results" / f"{run.name}.json").whole


@pytest.mark.slow
def test_a_full_disk_of_the_results_stops_no_run_and_no_summary(launch, tmp_path, monkeypatch):
    original = atomic.os.replace

    def full(source, target):
        if "results" in str(target) or str(target).endswith("summary.md"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", full)
        code, out = launch("--results", str(tmp_path / "results"))
    assert (code, len(launch.stage.calls())) == (1, 6)
    assert "Differences from discs_config, Uncertainty" in out
    assert not (tmp_path / "work" / "summary.md").exists()
    assert list((tmp_path / "results").iterdir()) == []
    code, out = launch("--results", str(tmp_path / "results"))
    assert (code, len(launch.stage.calls())) == (0, 6)
    assert len(list((tmp_path / "results").iterdir())) == 6
    assert (tmp_path / "work" / "summary.md").is_file()


@pytest.mark.slow
def test_overwriting_trains_everything_anew(launch):
    launch()
    code, out = launch("--overwrite")
    assert (code, "0 finished, 6 to train" in out, len(launch.stage.calls())) == (0, True, 12)


def test_nothing_runs_on_request(launch, tmp_path):
    code, out = launch("--print", "--gpus", "4")
    assert (code, launch.stage.calls(), (tmp_path / "work").exists()) == (0, [], False)
    lines = out.strip().splitlines()
    assert len(lines) == 6
    assert all(
        line.startswith("torchrun --standalone --nproc-per-node=4 -m mtvision.cli.main train")
        for line in lines
    )
    launch.stage.train(launch.stage.runs[:1])
    code, out = launch("--dry-run")
    assert re.findall(r"(finished|new) +discs_config_(\w+)_seed0", out) == [
        ("finished", "Uncertainty"), ("new", "FixedWeights")
    ]  # fmt: skip


@pytest.mark.slow
def test_gains_over_the_single_task_runs_of_the_grid(tmp_path, capsys):
    launch = Launch(tmp_path, capsys, "tasks=['semseg'],['depth'],['semseg','depth']", seeds=(0, 1))
    for index, (task, score, value) in enumerate(
        [("semseg", "miou", 0.2), ("semseg", "miou", 0.3), ("depth", "rmse", 1.0), ("depth", "rmse", 2.0)]
    ):
        entry = next(item for item in TASKS if item["name"] == task)
        launch.rewrite(index, tasks=[entry], scores={task: {score: value}})
    for index in (4, 5):
        launch.rewrite(index, scores={"semseg": {"miou": 0.5}, "depth": {"rmse": 0.75}})
    results = tmp_path / "results"
    code, out = launch("--results", str(results), "--baseline", "single-task")
    assert code == 0, out
    gains = {path.stem: Record.load(path).gain for path in results.iterdir()}
    both = gains["discs_config_tasks-semseg+depth_seed1"]
    assert both["parts"] == pytest.approx({"semseg": 100.0, "depth": 50.0})
    assert both["percent"] == pytest.approx(75.0)
    assert sum(gain is not None for gain in gains.values()) == 2
    assert re.search(r"single-task \(2 networks\) +tiny +25.00 ± 7.07", out)
    assert "75.00" in out


@pytest.mark.slow
def test_without_single_task_runs_there_are_no_gains_and_a_line_says_why(launch, tmp_path):
    code, out = launch("--results", str(tmp_path / "results"), "--baseline", "single-task")
    assert code == 0
    assert out.count("no gain: ") == 2  # once per row, not per seed
    assert "no gain: discs_config, Uncertainty / tiny: task semseg has no single-task network" in out
    assert "± 1.00" in out


def test_mistakes_end_with_one_message(launch):
    assert launch("--set", "optimiser.lr=1")[0] == 2
    with pytest.raises(SystemExit):
        launch("--workers", "0")
    code, out = launch("--reference", "nobody")
    assert code == 2
    assert "Unknown method to compare with 'nobody'" in out


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--baseline", "singel-task", "Unknown baseline 'singel-task'. Did you mean 'single-task'?"),
        ("--results", "discs_config.py", "discs_config.py is a file. Choose another folder."),
        ("--train-command", "no-such-program now", "does not begin with a program of this machine"),
        ("--train-command", "", "does not begin with a program of this machine"),
        ("--name", "alike", "--name: 'alike' calls 2 rows of"),
        ("--set", "optimizer.lr=1e-3,0.001", "repeats a key or a value"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(option, value, words, launch, tmp_path):
    """Some were told after the last run, or as an error of the system that names no option."""
    if option == "--results":
        value = str(next(tmp_path.rglob(value)))
    code, out = launch(option, value)
    assert code == 2
    assert words in out
    assert not list(tmp_path.rglob("record.json"))
    assert not list(tmp_path.rglob("launch.log"))


TOOL = [sys.executable, str(Path(discs.__file__).with_name("run_tool.py"))]


@pytest.mark.long
def test_a_stopped_grid_goes_on_and_ends_like_an_uninterrupted_one(tmp_path, capsys):
    text = discs.CONFIG.replace("iterations=12", "iterations=40").replace("val_interval=6", "val_interval=0")
    config = discs.write_config(tmp_path, text)
    cut, whole = tmp_path / "cut" / "discs_config_seed0", tmp_path / "whole"
    command = [
        str(config), "--seeds", "0", "1", "--work-dir", str(tmp_path / "cut"),
        "--train-command", shlex.join([*TOOL, "train"]),
    ]  # fmt: skip

    def press():
        while not (cut / "iter_5.pth").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    code = call("launch", command)
    out = "".join(capsys.readouterr())
    assert code == 130, out
    assert "discs_config_seed0: interrupted; run the same command to continue" in out
    assert not (cut / "record.json").exists()
    code = call("launch", command)
    out = "".join(capsys.readouterr())
    assert code == 0, out
    assert "2 to train (1 from a checkpoint)" in out
    words = [str(config), "--work-dir", str(whole), "--seed", "0"]
    environment = child_environment(0, 1)  # as many threads, so that sums are rounded alike
    subprocess.run([*TOOL, "train", *words], check=True, capture_output=True, timeout=200, env=environment)
    assert Record.load(cut / "record.json").scores == Record.load(whole / "record.json").scores
    assert (cut / "losses.jsonl").read_text() == (whole / "losses.jsonl").read_text()
    weights = [load_checkpoint(folder / "iter_40.pth")["state_dict"] for folder in (cut, whole)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    records = find_records(sorted((tmp_path / "cut").glob("*/record.json")))
    values = [record.scores["depth"]["rmse"] for record in records]
    assert len(values) == 2
    assert f"{mean(values):.4f} ± {stdev(values):.4f}" in out
