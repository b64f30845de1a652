"""A run directory that defends itself: one command, checkpoints that stay, books that add up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import discs
import pytest
import torch

from mtvision.engine import training as training_file
from mtvision.engine.module import TrainingModule
from mtvision.engine.run_dir.books import Books, job, totals
from mtvision.engine.run_dir.retention import CheckpointHook
from mtvision.engine.training import fit, train
from mtvision.protocols import own_protocol
from mtvision.recipe.config import load_config
from mtvision.recipe.selection import CHOICES, check_selection
from mtvision.runtime import whole as whole_file
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint
from mtvision.runtime.lock import BusyError, holding
from mtvision.runtime.signals import TrainingInterruptedError
from mtvision.runtime.whole import file_sha256

SHORT = ("training.iterations=6", "training.checkpoint_interval=2", "training.val_interval=0")


def fitted(folder: Path, *options: str, resume: str | None = "auto", **arguments):
    config = load_config(discs.write_config(folder.parent), [*SHORT, *options])
    return fit(config, folder, resume=resume, quiet=True, **arguments)


def rows(folder: Path, name: str = "losses.jsonl") -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights(folder: Path, step: int = 6) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder / f"iter_{step}.pth")["state_dict"]
    return {name: value for name, value in state.items() if torch.is_tensor(value)}


def names(folder: Path, pattern: str = "iter_*") -> set[str]:
    return {path.name for path in folder.glob(pattern)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fitted(folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    """The same, moved to another path, and to be disturbed."""
    return Path(shutil.copytree(whole, tmp_path / "moved"))


def as_whole(folder: Path, whole: Path) -> bool:
    """Whether losses and weights are those of the undisturbed run, to the last bit."""
    assert rows(folder) == rows(whole)
    torch.testing.assert_close(weights(folder), weights(whole), rtol=0, atol=0)
    return True


def dies_in_step(monkeypatch, number: int, how) -> None:
    steps, original = iter(range(1, 99)), TrainingModule.train_step

    def step(self, batch, optim_wrapper):
        outputs = original(self, batch, optim_wrapper)
        if next(steps) == number:
            how()
        return outputs

    monkeypatch.setattr(TrainingModule, "train_step", step)


def stopped(monkeypatch, error, number, how, *arguments, **options):
    with monkeypatch.context() as patch:
        dies_in_step(patch, number, how)
        with pytest.raises(error):
            fitted(*arguments, **options)


def killed():
    raise MemoryError("killed")


def stop(number: signal.Signals):
    return lambda: signal.raise_signal(number)


@pytest.mark.slow
@pytest.mark.fault("killed before the first checkpoint", expected="--resume starts anew; no line is doubled")
def test_killed_before_the_first_checkpoint(tmp_path, monkeypatch, whole, caplog):
    folder = tmp_path / "run"
    stopped(monkeypatch, MemoryError, 2, killed, folder)
    with (folder / "losses.jsonl").open("a") as file:
        file.write('{"iter": 1, "total": 7.0}\n{"iter": 2, "half a li')
    with pytest.raises(FileExistsError, match="losses.jsonl.*--resume.*--overwrite"):
        fitted(folder, resume=None)
    fitted(folder)
    assert as_whole(folder, whole)
    assert "ended before its first checkpoint; it starts anew" in caplog.text
    assert totals(folder)["restarts"] == 1  # the refused command is none


@pytest.mark.fault("the newest checkpoint is damaged", expected="the one before is taken; one line names it")
def test_resume_passes_over_damaged_checkpoints(copy, whole, caplog):
    (copy / "iter_6.pth").unlink()
    (copy / "iter_6.pth").mkdir()
    (copy / ".iter_6.pth.0123456789ab.part").write_bytes(b"half")
    fitted(copy)
    assert as_whole(copy, whole)
    assert "the run continues from iter_4.pth; set aside as .damaged: iter_6.pth is a folder" in caplog.text
    assert names(copy) == {"iter_4.pth", "iter_6.pth", "iter_6.pth.damaged"}
    assert names(copy, ".iter*") == set()


def test_resuming_reads_a_checkpoint_once_to_compare_it(copy, monkeypatch):
    hashed = []
    monkeypatch.setattr(whole_file, "file_sha256", lambda path: hashed.append(path.name) or file_sha256(path))
    fitted(copy, "training.iterations=7")
    fitted(copy, "training.iterations=8", resume=str(copy / "iter_7.pth"))
    assert hashed == ["iter_6.pth", "iter_7.pth"]
    assert json.loads((copy / "attempts" / "003.json").read_text())["from"] == {
        "file": "iter_7.pth",
        "sha256": file_sha256(copy / "iter_7.pth"),
    }


@pytest.mark.fault("all checkpoints are damaged", expected="refused, with what is wrong; nothing is deleted")
def test_resume_without_any_whole_checkpoint_is_refused(copy):
    for step in (4, 6):
        (copy / f"iter_{step}.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"iter_6.pth is empty\n  iter_4.pth is empty"):
        fitted(copy)
    assert names(copy) == {"iter_4.pth", "iter_6.pth"}


@pytest.mark.fault("--resume FILE in a new folder, killed, the same command", expected="continues, not back")
def test_resume_from_a_file_into_a_new_folder(tmp_path, monkeypatch, whole, caplog):
    start, folder = str(whole / "iter_4.pth"), tmp_path / "run"
    stopped(monkeypatch, TrainingInterruptedError, 1, stop(signal.SIGTERM), folder, resume=start)
    fitted(folder, resume=start)
    assert "continues from its own iter_5.pth" in caplog.text
    assert rows(folder) == rows(whole)[4:]
    torch.testing.assert_close(weights(folder), weights(whole), rtol=0, atol=0)
    with pytest.raises(FileExistsError, match=r"did not begin from .*iter_6.pth"):
        fitted(folder, resume=str(whole / "iter_6.pth"))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        fitted(folder, resume=str(tmp_path / "none.pth"))
    books = totals(folder)
    assert (books["restarts"], books["images"], books["signals"]) == (1, 8, ["SIGTERM"])


@pytest.mark.fault(
    "--resume with an older checkpoint", expected="later ones are renamed, not mixed in or deleted"
)
def test_going_back_sets_later_checkpoints_aside(copy, whole):
    fitted(copy, resume=str(copy / "iter_4.pth"))
    assert as_whole(copy, whole)
    assert names(copy) == {"iter_4.pth", "iter_6.pth", "iter_6.pth.later"}


@pytest.mark.fault(
    "torchrun or Slurm runs the plain command again", expected="it continues; another job may not"
)
def test_a_restart_by_the_launcher_goes_on(copy, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    fitted(copy, "training.iterations=7", resume=None, overwrite=True)
    assert len(rows(copy)) == 7
    monkeypatch.setenv("SLURM_JOB_ID", "of another job")
    with pytest.raises(FileExistsError, match="--resume"):
        fitted(copy, resume=None)


@pytest.mark.fault("a second run in the folder of a running one", expected="refused; nothing is touched")
def test_a_second_run_is_refused(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    caught = []

    def second():
        try:
            fitted(copy, "training.iterations=7")
        except BusyError as error:
            caught.append(str(error))

    with holding(copy):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in caught[0]
    after = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.name != ".train.lock"}
    assert {path: before[path] for path in after} == after


@pytest.mark.fault(
    "killed while the last checkpoint is scored",
    expected="the same command scores it; a run that is done stays as it is",
)
@pytest.mark.slow
def test_one_command_starts_scores_and_is_done(tmp_path, monkeypatch):
    config = load_config(discs.write_config(tmp_path), [*SHORT, "training.iterations=2"])
    folder = tmp_path / "new" / "run"
    first = train(config, folder, resume="auto")
    assert first.training["images"] == 8

    def never(*_, **__):
        raise AssertionError("it trains again")

    monkeypatch.setattr(TrainingModule, "train_step", never)
    (folder / "record.json").unlink()
    scored = train(config, folder, resume="auto")  # killed while it scored
    assert scored.scores == first.scores
    assert scored.training["restarts"] == 1
    assert scored.training["hosts"] == first.training["hosts"] != []
    monkeypatch.setattr(training_file, "fit", never)
    assert train(config, folder, resume="auto").scores == first.scores
    (folder / "iter_2.pth").unlink()
    assert train(config, folder, resume="auto").created == scored.created
    with pytest.raises(AssertionError, match="trains again"):
        train(config.with_options({"seed": 1}), folder, resume="auto")
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match="checkpoints are gone and whose config differs"):
        train(config.with_options({"seed": 1}), folder, resume="auto")


@pytest.mark.fault(
    "killed, with keep_checkpoints and keep_every", expected="the same files stay as without the kill"
)
@pytest.mark.slow
def test_what_stays_is_the_same_after_a_resume(tmp_path, monkeypatch):
    options = ("training.keep_checkpoints=1", "training.keep_every=4", "training.iterations=7")
    fitted(tmp_path / "whole", *options)
    stopped(monkeypatch, MemoryError, 5, killed, tmp_path / "cut", *options)
    fitted(tmp_path / "cut", *options)
    assert names(tmp_path / "cut") == names(tmp_path / "whole") == {"iter_4.pth", "iter_7.pth"}
    entered = json.loads((tmp_path / "cut" / "checkpoints.json").read_text())["files"]
    assert entered.keys() >= {"iter_4.pth", "iter_7.pth"}
    assert "iter_2.pth" not in entered


@pytest.mark.slow
def test_the_best_evaluated_checkpoint_stays(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(CheckpointHook, "_best_step", lambda self, folder: 3 if len(found) > 2 else None)
    original = CheckpointHook.after_val_epoch

    def note(self, runner, metrics=None):
        found.append(runner.iter)
        original(self, runner, metrics)

    monkeypatch.setattr(CheckpointHook, "after_val_epoch", note)
    options = ("evaluation.select=best", "training.val_interval=1", "training.keep_checkpoints=1")
    fitted(tmp_path / "run", *options)
    assert found == [1, 2, 3, 4, 5]
    assert names(tmp_path / "run") == {"iter_3.pth", "iter_6.pth"}


def test_the_best_evaluation_is_a_mean_over_tasks():
    protocol = own_protocol("two", {"semseg": {"class_names": ["a", "b"]}, "depth": {}})
    table = [(0.5, 1.0), (0.6, 1.0), (0.55, 0.5), (float("nan"), 0.1)]
    evaluations = [
        {"iter": i, "scores": {"semseg/miou": miou, "depth/rmse": rmse}}
        for i, (miou, rmse) in enumerate(table)
    ]
    assert CHOICES["best"](evaluations, protocol) == [2]
    check_selection("best", protocol, 100, 10)
    with pytest.raises(ValueError, match="needs the scores depth/rmse"):
        CHOICES["best"]([{"iter": 1, "scores": {"semseg/miou": 1.0}}], protocol)


@pytest.mark.slow
@pytest.mark.fault("killed or stopped with checkpoints in the background", expected="nothing is lost")
def test_checkpoints_in_the_background_lose_nothing(tmp_path, monkeypatch, whole):
    folder = tmp_path / "run"
    options = ("training.async_checkpoints=True", "training.ema=0.1")
    fitted(tmp_path / "plain", options[1])
    stopped(monkeypatch, TrainingInterruptedError, 3, stop(signal.SIGINT), folder, *options)
    assert names(folder) == {"iter_2.pth", "iter_3.pth"}
    stopped(monkeypatch, MemoryError, 2, killed, folder, *options)
    assert names(folder) == {"iter_3.pth", "iter_4.pth"}
    fitted(folder, *options)
    assert as_whole(folder, tmp_path / "plain")
    assert totals(folder)["signals"] == ["SIGINT"]


@pytest.mark.fault("killed between two reports", expected="metrics and books say what one run would")
def test_books_and_metrics_of_two_attempts(tmp_path, monkeypatch):
    options = ("training.log_interval=4", "training.iterations=8", "training.keep_checkpoints=9")
    fitted(tmp_path / "whole", *options)
    folder = tmp_path / "cut"
    stopped(monkeypatch, MemoryError, 7, killed, folder, *options)
    fitted(folder, *options)

    def timeless(name):
        found = rows(tmp_path / name, "metrics.jsonl")
        return [{key: row[key] for key in row if key != "seconds_per_iteration"} for row in found]

    assert timeless("cut") == timeless("whole")
    first, second = (json.loads((folder / "attempts" / f"00{i}.json").read_text()) for i in (1, 2))
    assert first["ended"] == "MemoryError: killed"
    assert (first["steps"], second["steps"], second["ended"]) == (6, 2, "done")
    assert second["from"]["file"] == "iter_6.pth"
    assert second["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    books = totals(folder)
    assert books["images"] == 4 * 8
    assert books["hours"] == pytest.approx((first["seconds"] + second["seconds"]) / 3600)
    log = (folder / "train.log").read_text()
    assert "ended by MemoryError: killed" in log
    assert "checkpoint iter_8.pth: 0." in log
    assert "iter 8/8" in log


@pytest.mark.fault("the clock is set back by a day", expected="durations stay what they are")
def test_a_clock_that_is_set_changes_no_duration(tmp_path, monkeypatch):
    with Books(tmp_path, hosts=["a"], images=4, about={}) as books:
        monkeypatch.setattr(time, "time", lambda: -86400.0)
        books.after_train_iter(None)
    found = totals(tmp_path)
    assert 0 <= found["hours"] < 1
    assert found["images"] == 4


@pytest.mark.fault("a damaged file in attempts/", expected="left out of the sums; the run goes on")
def test_damaged_books_do_not_end_a_run(tmp_path):
    for hosts in ("a", "b", "a"):
        with Books(tmp_path, hosts=[hosts], images=4, about={}, patch="+ a line"):
            pass
    (tmp_path / "attempts/002.json").write_text('{"ho')
    assert totals(tmp_path)["hosts"] == ["a"]
    assert totals(tmp_path)["restarts"] == 1
    assert (tmp_path / "attempts/001.diff").read_text() == "+ a line"
    assert job() == Books(tmp_path, hosts=[], images=1, about={})._entry["job"]
