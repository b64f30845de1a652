"""Runs that are asked to end: where they stop, what they leave, that the same command goes on exactly."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import discs
import pytest
import torch

from mtvision.engine import training
from mtvision.engine.loop import EvaluationLoop, TrainLoop
from mtvision.engine.phases import part
from mtvision.engine.training import train
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.recipe.config import load_config
from mtvision.recipe.selection import VALIDATION_FILE
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.runtime.signals import TrainingPausedError

fault = pytest.mark.fault
SHORT = ("training.iterations=4", "training.val_interval=2", "train_data.batch_size=2")


def run(folder: Path, name: str, *options: str, **arguments):
    return train(load_config(discs.write_config(folder), [*SHORT, *options]), folder / name, **arguments)


def lines(folder: Path, name: str = "losses.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def signal_in(monkeypatch, owner, name, number, call=1):
    """Raise a signal within the nth call of a method or function."""
    original, calls = getattr(owner, name), []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(number)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder and scores of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    torch.manual_seed(0)
    return folder / "run", run(folder, "run").scores


def assert_same(folder: Path, whole, joined):
    """The joined run has the losses, evaluations, weights and scores of the whole one."""
    expected, scores = whole
    for name in ("losses.jsonl", VALIDATION_FILE):
        assert lines(folder, name) == lines(expected, name)
    states = [load_checkpoint(item / "iter_4.pth")["state_dict"] for item in (folder, expected)]
    weights = [{name: value for name, value in state.items() if torch.is_tensor(value)} for state in states]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert joined.scores == scores


@fault("SIGUSR1 in an evaluation during training", expected="a checkpoint; resuming evaluates there")
def test_a_signal_within_an_evaluation_breaks_it_off_and_resuming_does_it(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        signal_in(patch, EvaluationLoop, "run_iter", signal.SIGUSR1)
        with pytest.raises(TrainingPausedError, match=r"SIGUSR1\) after iteration 2; .*iter_2.pth"):
            run(tmp_path, "cut")
    assert not (tmp_path / "cut" / VALIDATION_FILE).exists()
    assert_same(tmp_path / "cut", whole, run(tmp_path, "cut", resume="auto"))


@pytest.mark.slow
@fault("SIGHUP while the last checkpoint is scored", expected="exit code 75; the resumed run scores it")
def test_a_signal_within_the_last_evaluation_loses_no_step(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        signal_in(patch, SampleEvaluator, "process", signal.SIGHUP, call=5)
        with pytest.raises(TrainingPausedError, match="All steps are done"):
            run(tmp_path, "cut")
    assert not (tmp_path / "cut" / "record.json").exists()
    assert_same(tmp_path / "cut", whole, run(tmp_path, "cut", resume="auto"))


@fault("SIGTERM before the first step", expected="exit code 75; the same command starts")
@pytest.mark.parametrize(
    ("module", "place"),
    [(part, "build_dataset"), (part, "network_of"), (training, "runner_of")],
    ids=["build_dataset", "network_of", "runner_of"],
)
def test_a_signal_before_the_first_step_leaves_a_folder_that_can_be_used(
    tmp_path, monkeypatch, module, place
):
    with monkeypatch.context() as patch:
        signal_in(patch, module, place, signal.SIGTERM)
        with pytest.raises(TrainingPausedError, match="No step is lost: run the same command again"):
            run(tmp_path, "cut")
    assert training.prepare(tmp_path / "cut", None, overwrite=False) is None


@fault("a time limit during training", expected="a checkpoint before it, exit code 75")
@pytest.mark.parametrize(("resume", "command"), [(None, "command with --resume"), ("auto", "command")])
def test_a_time_limit_ends_the_run_between_two_steps(resume, command, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainLoop, "_took", lambda self, what, start: self._longest.update({what: 10.0}))
    said = rf"stopped by the time limit after iteration 1; checkpoint.* Run the same {command} to continue"
    with pytest.raises(TrainingPausedError, match=said):
        run(tmp_path, "cut", "training.time_limit_minutes=0.5", resume=resume)
    assert (tmp_path / "cut" / "iter_1.pth").is_file()
