"""What was measured is on the disk before anything is drawn or sent; what fails later costs nothing else."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from dataclasses import asdict, replace

import discs
import pytest
import torch

from mtvision.cli.main import call
from mtvision.engine import evaluate as evaluate_file
from mtvision.engine import records as records_file
from mtvision.engine import training as training_file
from mtvision.engine.evaluate import evaluate_checkpoint
from mtvision.engine.records import RefusedRecordError, portable, require_whole
from mtvision.engine.run_dir.start import finished
from mtvision.engine.tracked import run as tracked_file
from mtvision.engine.training import train
from mtvision.evaluation import scoring as scoring_file
from mtvision.metrics.depth import Depth
from mtvision.recipe.config import load_config
from mtvision.report.record import Record
from mtvision.runtime import atomic
from mtvision.runtime.attempts import IncompleteError
from mtvision.runtime.lock import HOLDER_FILE, Holder
from mtvision.tracking import loggers as loggers_file

pytestmark = pytest.mark.slow  # every test trains or scores a run

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/of/this/machine")
SHORT = ("training.iterations=2", "training.val_interval=0", "evaluation.constant_predictor=4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config file and the checkpoint of a short run."""
    folder = tmp_path_factory.mktemp("trained")
    config = discs.write_config(folder)
    record = train(load_config(config, SHORT), folder / "run")
    return config, folder / "run" / "iter_2.pth", record


def failing(error):
    def fail(*arguments, **options):
        raise error

    return fail


def full_for(monkeypatch, *names):
    """A disk that takes no file of these names, nor any temporary file of theirs."""
    original = atomic.os.replace

    def refuse(source, target):
        if any(name in os.fspath(target) for name in names):
            raise FULL
        return original(source, target)

    monkeypatch.setattr(atomic.os, "replace", refuse)


def score_again(trained, work_dir, *options):
    """Exit code of `mtvision test` on the trained checkpoint."""
    config, checkpoint, _ = trained
    arguments = [str(config), str(checkpoint), "--work-dir", str(work_dir), *options]
    return call("test", [*arguments, "--cfg-options", *SHORT])


def leftovers(folder):
    return [path.name for path in folder.rglob("*.part")] + [path.name for path in folder.rglob(".*")]


def test_a_run_without_trouble_has_no_such_lines(trained):
    _, checkpoint, record = trained
    stored = json.loads((checkpoint.parent / "record.json").read_text())
    assert (stored["missing"], stored["failures"]) == ([], [])
    assert Record.load(checkpoint.parent / "record.json").whole
    assert record.scores == Record.load(checkpoint.parent / "record.json").scores
    require_whole(record)


def test_a_test_never_replaces_what_a_training_measured(trained, tmp_path):
    _, checkpoint, _ = trained
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parent, run)
    before = Record.load(run / "record.json")
    assert before.training["hours"] > 0
    assert score_again(trained, run) == 0
    again = Record.load(run / "record.json")
    assert (again.training, again.scores) == (before.training, before.scores)
    replace(before, missing=["killed"], data={}, checkpoint=None).save(run / "record.json")
    assert score_again(trained, run) == 0  # completes what a kill left
    again = Record.load(run / "record.json")
    assert (again.training, again.whole) == (before.training, True)
    shutil.copy(checkpoint, tmp_path / "iter_1.pth")
    other = torch.load(tmp_path / "iter_1.pth", weights_only=False)
    name = next(key for key, item in other["state_dict"].items() if item.is_floating_point())
    other["state_dict"][name] += 1
    torch.save(other, tmp_path / "iter_1.pth")
    config, _, _ = trained
    kept = (run / "record.json").read_bytes()
    for file, options in (
        (tmp_path / "iter_1.pth", SHORT),  # another checkpoint
        (checkpoint, [*SHORT, "evaluation.constant_predictor=0"]),  # another config
    ):
        assert call("test", [str(config), str(file), "--work-dir", str(run), "--cfg-options", *options]) == 0
        assert (run / "record.json").read_bytes() == kept
        assert Record.load(run / f"test_{file.stem}" / "record.json").checkpoint["file"] == file.name
    assert score_again(trained, tmp_path / "half", "--amp") == 0
    half = Record.load(tmp_path / "half" / "record.json").precision
    assert half == {"train": "fp32", "evaluation": "bf16"}
    (run / "record.json").write_text("{")  # who knows what it was
    assert score_again(trained, run) == 0
    assert (run / "record.json").read_text() == "{"


def test_a_test_tells_what_differs_from_the_training(trained, tmp_path, capsys):
    """A record has the seed that was trained, and says which settings its config has not trained with."""
    config, checkpoint, _ = trained
    words = [str(config), str(checkpoint), "--cfg-options", *SHORT, "--work-dir"]
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parent, run)
    assert call("test", [*words, str(run), "--cfg-options", *SHORT, "optimizer.lr=3.0"]) == 0
    said = capsys.readouterr().err
    assert (
        "differs from that of the training in optimizer.lr. As trained: --cfg-options optimizer.lr=0.01"
        in said
    )
    (note,) = [note for note in Record.load(run / "test_iter_2" / "record.json").notes if "Trained" in note]
    assert note == "Trained with other settings than this config says: optimizer.lr: 0.01 → 3.0."
    fewer = [*words, str(run), "--cfg-options", *SHORT, "tasks=['depth']"]
    assert call("test", fewer) == 0
    assert "training in tasks" in capsys.readouterr().err
    assert not any("Trained" in note for note in Record.load(run / "test_iter_2" / "record.json").notes)


def test_a_record_has_the_seed_of_the_training(trained, tmp_path, capsys):
    """With the config's seed, two runs of one seed would stand in a row of two seeds."""
    config, *_ = trained
    other = tmp_path / "other"
    train(load_config(config, [*SHORT, "seed=3"]), other)
    words = [str(config), str(other / "iter_2.pth"), "--work-dir", str(other), "--cfg-options", *SHORT]
    assert call("test", words) == 0  # the very same run
    assert not (other / "test_iter_2").exists()
    assert Record.load(other / "record.json").seed == 3
    assert call("test", [*words, "--seed", "4"]) == 2
    assert "was trained with seed 3" in capsys.readouterr().err


def test_scores_and_latency_have_the_threads_of_the_config(trained, tmp_path):
    """With more threads than free cores, each waits for the others: scoring took five times as long."""
    config, checkpoint, _ = trained
    words = [str(config), str(checkpoint), "--work-dir", str(tmp_path), "--cfg-options", *SHORT]
    before = torch.get_num_threads()
    assert call("test", [*words, f"training.threads={before + 1}"]) == 0
    assert Record.load(tmp_path / "record.json").cost["latency"]["threads"] == before + 1
    assert torch.get_num_threads() == before


LATER = {
    "table.md": (evaluate_file, "write_text", "table.md: OSError: [Errno 28] No space left on device"),
    "pictures": (scoring_file, "write_picture", "pictures: OSError: [Errno 28] No space left on device"),
    "terminal": (
        evaluate_file,
        "print",
        "table on the terminal: OSError: [Errno 28] No space left on device",
    ),
}


@pytest.mark.fault(
    "the disk is full after training", expected="the record is there; what is missing is named"
)
@pytest.mark.parametrize("name", LATER)
def test_a_full_disk_after_the_record_costs_only_what_it_hits(name, trained, tmp_path, monkeypatch, caplog):
    module, function, line = LATER[name]
    monkeypatch.setattr(module, function, failing(FULL), raising=False)
    assert score_again(trained, tmp_path / "work") == 0
    record = Record.load(tmp_path / "work" / "record.json")
    assert record.whole
    (found,) = record.failures
    assert found.startswith(line)
    assert "/somewhere" not in found
    (said,) = [item.getMessage() for item in caplog.records if item.name == "mtvision"]
    assert said.startswith(line)
    assert "/somewhere/of/this/machine" in said
    there = {path.name for path in (tmp_path / "work").iterdir()}
    assert there == {"record.json", "table.md", "pictures"} - {name if name == "table.md" else ""}
    assert leftovers(tmp_path) == []


@pytest.mark.fault("pictures cannot be drawn", expected="the record is there; one line says why")
@pytest.mark.parametrize(
    "error", [ValueError("a 3-channel task\nhas no colours"), RuntimeError(), KeyError(3)]
)
def test_a_drawing_error_is_one_line(error, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring_file, "panel", failing(error))
    assert score_again(trained, tmp_path) == 0
    record = Record.load(tmp_path / "record.json")
    (line,) = record.failures
    first = str(error).splitlines()[:1]
    assert line.startswith(": ".join(["pictures", type(error).__name__, *first]))
    assert line.endswith("; `mtvision test` draws them again")
    assert (tmp_path / "table.md").is_file()


def test_a_file_on_a_full_disk_is_the_old_one_or_absent(trained, tmp_path, monkeypatch):
    (tmp_path / "table.md").write_text("old")
    full_for(monkeypatch, "table.md", ".png")
    assert score_again(trained, tmp_path) == 0
    assert (tmp_path / "table.md").read_text() == "old"
    assert list((tmp_path / "pictures").iterdir()) == []
    assert len(Record.load(tmp_path / "record.json").failures) == 2


def test_the_first_record_stays_where_its_lines_cannot_be_added(trained, tmp_path, monkeypatch, caplog):
    """The disk fills up between the record and the pictures."""
    original = scoring_file.write_picture

    def fill(*arguments):
        full_for(monkeypatch, "record.json")
        original(*arguments)
        raise FULL

    monkeypatch.setattr(scoring_file, "write_picture", fill)
    assert score_again(trained, tmp_path) == 0
    record = Record.load(tmp_path / "record.json")
    assert (record.whole, record.failures) == (True, [records_file.NOT_YET])
    said = [item.getMessage().split(":")[0] for item in caplog.records if item.name == "mtvision"]
    assert said == ["pictures", "failures in record.json"]


PARTS = {
    "cost": (records_file, "measure_cost", "cost: RuntimeError: no kernel", {"cost"}),
    "constant": (evaluate_file, "measure_constant", "constant predictor: RuntimeError: no", {"constant"}),
    "images": (records_file, "scored_data", "scored data: RuntimeError: no kernel", {"scored"}),
    "checkpoint": (records_file, "file_sha256", "checkpoint: RuntimeError: no kernel", {"checkpoint"}),
    "gain": (records_file, "_gain", "gain: RuntimeError: no kernel", {"gain"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_cannot_be_measured_is_named_and_the_rest_is_there(
    name, trained, tmp_path, monkeypatch, capsys
):
    module, function, line, fields = PARTS[name]
    monkeypatch.setattr(module, function, failing(RuntimeError("no kernel\nfor this")))
    assert score_again(trained, tmp_path) == 1
    record, whole = Record.load(tmp_path / "record.json"), trained[2]
    assert record.scores == whole.scores
    assert (record.failures, len(record.missing)) == ([], 1)
    assert record.missing[0].startswith(line)
    assert "for this" not in record.missing[0]
    absent = {field for field in ("constant", "cost", "scored", "checkpoint") if not getattr(record, field)}
    assert absent == fields - {"gain"}
    assert {path.name for path in tmp_path.iterdir()} == {"record.json", "table.md", "pictures"}
    assert f"1 part of the result failed:\n  {record.missing[0]}" in capsys.readouterr().err


def test_training_data_that_are_gone_cost_no_scores(trained, tmp_path, monkeypatch):
    original = evaluate_file.build_dataset

    def build(section, *arguments):
        if section == "train_data":
            raise FileNotFoundError("no folder /data/discs")
        return original(section, *arguments)

    monkeypatch.setattr(evaluate_file, "build_dataset", build)
    assert score_again(trained, tmp_path) == 1
    record = Record.load(tmp_path / "record.json")
    assert record.scores == trained[2].scores
    assert record.missing[0].startswith("training data: FileNotFoundError: no folder <path>/discs; score")
    assert set(record.data) == {"val"}


def test_everything_at_once(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(records_file, "measure_cost", failing(MemoryError("cost")))
    monkeypatch.setattr(evaluate_file, "measure_constant", failing(ZeroDivisionError("constant")))
    monkeypatch.setattr(scoring_file, "panel", failing(IndexError("panel")))
    monkeypatch.setattr(evaluate_file, "render_table", failing(KeyError("table")))
    assert score_again(trained, tmp_path) == 1
    record = Record.load(tmp_path / "record.json")
    assert [line.split(":")[1] for line in record.missing] == [" ZeroDivisionError", " MemoryError"]
    whats = [line.split(":")[0] for line in record.failures]
    assert whats == ["table.md", "table on the terminal", "pictures"]
    assert record.scores == trained[2].scores


@pytest.mark.fault("the record cannot be written", expected="it is in the temporary folder, else printed")
def test_a_record_that_its_folder_cannot_take_is_in_the_temporary_folder(
    trained, tmp_path, monkeypatch, caplog
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    full_for(monkeypatch, str(tmp_path / "work" / "record.json"))
    monkeypatch.setattr(scoring_file, "panel", failing(ValueError("no colours")))
    assert score_again(trained, tmp_path / "work") == 1
    (file,) = scratch.iterdir()
    record = Record.load(file)
    assert (record.scores, record.missing) == (trained[2].scores, [])
    assert record.failures == ["pictures: ValueError: no colours; `mtvision test` draws them again"]
    assert f"copy it from the temporary folder: {file}" in caplog.text
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"table.md", "pictures"}


@pytest.mark.fault("the record cannot be written", expected="it is in the temporary folder, else printed")
def test_a_record_that_no_disk_takes_is_printed(trained, tmp_path, monkeypatch, capsys):
    full_for(monkeypatch, "record.json")
    assert score_again(trained, tmp_path) == 1
    out, _ = capsys.readouterr()
    text = out[: out.index("\n}\n") + 3]
    assert Record.from_json(json.loads(text)).scores == trained[2].scores
    assert "record.json" not in {path.name for path in tmp_path.iterdir()}


def test_standard_output_stays_json_where_no_disk_takes_the_record(trained, tmp_path, monkeypatch, capsys):
    full_for(monkeypatch, "record.json")
    assert score_again(trained, tmp_path, "--json", "-") == 1
    out, err = capsys.readouterr()
    assert Record.from_json(json.loads(out)).scores == trained[2].scores
    assert '"scores": {' in err


def test_a_file_that_was_asked_for_and_failed_is_an_error_after_all_else(
    trained, tmp_path, monkeypatch, capsys
):
    full_for(monkeypatch, "out.json")
    assert score_again(trained, tmp_path / "work", "--json", str(tmp_path / "out.json")) == 1
    assert Record.load(tmp_path / "work" / "record.json").whole
    assert "--json: out.json: OSError: [Errno 28] No space left on device" in capsys.readouterr().err


class Broken:
    """A logger that fails at everything."""

    def __init__(self, *arguments, **options):
        pass

    scalars = image = predictions = finish = failing(ConnectionError("the server is gone\nfor ever"))


class DiesAtTheEnd(Broken):
    """A logger that takes curves but no pictures."""

    def scalars(self, values, step):
        pass


@pytest.mark.fault("a logger fails during training", expected="the run goes on; said once and recorded")
@pytest.mark.parametrize("kind", [Broken, DiesAtTheEnd])
def test_a_logger_that_fails_is_said_once_and_recorded(kind, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loggers_file, "TensorBoardLogger", kind)
    config = load_config(
        discs.write_config(tmp_path), ["logging.tensorboard=true", "training.log_interval=1"]
    )
    with caplog.at_level(logging.WARNING, logger="mtvision"):
        record = train(config, tmp_path / "run")
    line = f"{kind.__name__} stopped: ConnectionError: the server is gone; {loggers_file.NUMBERS}"
    assert [item.getMessage() for item in caplog.records if item.name == "mtvision"] == [line]
    stored = Record.load(tmp_path / "run" / "record.json")
    assert stored.failures == record.failures == [line]
    assert stored.whole
    assert (tmp_path / "run" / "iter_12.pth").is_file()


def test_a_logger_that_cannot_start_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers_file, "TensorBoardLogger", failing(FULL))
    config = load_config(discs.write_config(tmp_path), ["logging.tensorboard=true", *SHORT])
    record = train(config, tmp_path / "run")
    assert [line.split(":")[0] for line in record.failures] == ["TensorBoard is off for this run"]
    assert Record.load(tmp_path / "run" / "record.json").failures == record.failures


def test_what_follows_training_is_attempted_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(training_file, "write_selection", failing(FULL))
    monkeypatch.setattr(tracked_file, "record_summary", failing(KeyError("cost")))
    monkeypatch.setattr(tracked_file.cv2, "imread", failing(tracked_file.cv2.error("damaged")))
    options = ["logging.tensorboard=true", "training.iterations=10", "training.val_interval=1"]
    config = load_config(discs.write_config(tmp_path), [*options, "evaluation.select=average_last_10"])
    record = train(config, tmp_path / "run")
    whats = [line.split(":")[0] for line in record.failures]
    assert whats == ["selection.json", "disc-0.png in the loggers", "final numbers in the loggers"]
    assert Record.load(tmp_path / "run" / "record.json").failures == record.failures


@pytest.mark.parametrize("value", [-1.0, float("inf")])
def test_scores_that_cannot_be_right_are_said_and_not_recorded(value, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Depth, "score", lambda self, sums: {"rmse": value, "abs_rel": 0.25})
    assert score_again(trained, tmp_path) == 1
    err = capsys.readouterr().err
    assert f"scores.depth.rmse: found {value}, expected" in err
    assert '"abs_rel": 0.25' in err
    assert '"miou": 0.' in err
    assert not (tmp_path / "record.json").exists()
    assert trained[1].is_file()
    config, checkpoint, _ = trained
    with pytest.raises(RefusedRecordError, match="iter_2.pth is left as it is"):
        evaluate_checkpoint(load_config(config, SHORT), tmp_path, checkpoint, quiet=True)


@pytest.mark.parametrize("value", [-1.0, float("inf")])
def test_a_constant_predictor_that_cannot_be_right_does_not_take_the_scores_along(
    value, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate_file, "scores_of", lambda *_: {"depth": {"rmse": value}})
    assert score_again(trained, tmp_path) == 1
    record = Record.load(tmp_path / "record.json")
    assert (record.scores, record.constant) == (trained[2].scores, None)
    start = (
        f"constant predictor: RecordError: record: 1 violation: constant.depth.rmse: found {value}, expected"
    )
    assert record.missing[0].startswith(start)


@pytest.mark.fault("stopped between scores and pictures", expected="the scores are in the record")
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_scores_are_kept_when_the_rest_is_interrupted(stop, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(records_file, "measure_cost", failing(stop()))
    with pytest.raises(stop):
        score_again(trained, tmp_path)
    record = Record.load(tmp_path / "record.json")
    assert (record.scores, record.missing) == (trained[2].scores, [records_file.UNFINISHED])
    with pytest.raises(IncompleteError, match="the run ended before they were measured"):
        require_whole(record)
    Record.load(trained[1].parent / "record.json").save(tmp_path / "record.json")
    with pytest.raises(stop):
        score_again(trained, tmp_path)
    assert Record.load(tmp_path / "record.json").whole  # an earlier whole one is not replaced by a part


@pytest.mark.fault(
    "killed between record and pictures, or before the lock is released",
    expected="--resume scores again, or says that all is done; nothing is left over",
)
def test_a_run_that_was_cut_after_its_record_is_not_done(trained, tmp_path, monkeypatch):
    config, folder = load_config(trained[0], SHORT), tmp_path / "run"
    shutil.copytree(trained[1].parent, folder)
    (folder / HOLDER_FILE).write_text(json.dumps(asdict(replace(Holder.this_process(), pid=2**22 + 1))))
    assert finished(config, folder, "auto").scores == trained[2].scores
    assert not (folder / HOLDER_FILE).exists()
    shutil.rmtree(folder / "pictures")
    monkeypatch.setattr(evaluate_file, "write_panels", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        train(config, folder, resume=str(folder / "iter_2.pth"))
    assert Record.load(folder / "record.json").failures == [records_file.NOT_YET]
    assert finished(config, folder, "auto") is None
    monkeypatch.undo()
    assert train(config, folder, resume="auto").failures == []
    assert list((folder / "pictures").iterdir())
    assert Record.load(folder / "record.json").failures == []


def test_lines_of_a_record_hold_no_path_and_no_broken_character(trained):
    lines = portable(["pictures: OSError: [Errno 28] No space: '/home/me/a b/\udcff.png'; C:\\me\\x ~/y/z"])
    record = Record.load(trained[1].parent / "record.json")
    changed = Record.from_json({**record.to_json(), "failures": lines, "missing": lines})
    assert Record.from_json(json.loads(changed.to_text().encode())).failures == lines
