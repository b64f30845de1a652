"""What a run tells while it trains and when it ends: curves, lines, pictures, cost and the scored split."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import cv2
import discs
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.engine import records as records_file
from mtvision.engine.building import tasks_with_losses
from mtvision.engine.evaluate import evaluate_checkpoint
from mtvision.engine.evaluator import LoopEvaluator
from mtvision.engine.hooks import ProgressHook
from mtvision.engine.run_dir.journal import Journal
from mtvision.engine.tracked import run as tracked_run
from mtvision.engine.training import train
from mtvision.protocols import own_protocol
from mtvision.recipe.config import load_config
from mtvision.runtime.attempts import Attempts


class Named(nn.Linear):
    """A network with the protocol's task."""

    task_names = ("depth",)

    def __init__(self):
        super().__init__(1, 1)


class Kept:
    """A logger that keeps what it is given."""

    active = True

    def __init__(self):
        self.failures = []
        self.points, self.pictures, self.summary = [], {}, None

    def scalars(self, values, step):
        self.points.append((step, dict(values)))

    def image(self, name, picture, step):
        self.pictures[name] = (step, picture)

    def finish(self, summary, files):
        self.summary = summary


@pytest.fixture
def progress(tmp_path):
    """Five iterations with losses 1 to 5 and rates .1 to .5, reported every second."""
    kept, text = Kept(), io.StringIO()
    hook = ProgressHook(kept, 2, ["depth/rmse"], Journal(Console(file=text, width=200), None))
    group = {"lr": 0.0}
    optimizer = SimpleNamespace(param_groups=[group])
    runner = SimpleNamespace(
        iter=0, max_iters=5, work_dir=tmp_path, optim_wrapper=SimpleNamespace(optimizer=optimizer)
    )
    hook.before_train(runner)
    for index in range(5):
        runner.iter, group["lr"] = index, 0.1 * (index + 1)
        hook.after_train_iter(runner, index, outputs={"loss/depth": torch.tensor(index + 1.0)})
    runner.iter = 5
    return hook, runner, kept, text


def test_curves_are_means_since_the_last_point_at_the_newest_rate(progress):
    _, _, kept, text = progress
    assert [step for step, _ in kept.points] == [2, 4, 5]
    assert [point["loss/depth"] for _, point in kept.points] == [1.5, 3.5, 5.0]
    assert [point["lr"] for _, point in kept.points] == pytest.approx([0.2, 0.4, 0.5])
    lines = text.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["2/5", "4/5", "5/5"]
    assert "lr 2.00e-01  depth 1.500" in lines[0]


def test_every_iteration_is_one_line_of_the_loss_file(progress):
    hook, runner, _, _ = progress
    hook.after_train(runner)
    rows = [json.loads(line) for line in (runner.work_dir / "losses.jsonl").read_text().splitlines()]
    assert [row["iter"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["loss/depth"] for row in rows] == [1, 2, 3, 4, 5]


def test_scores_during_training_are_kept_and_shown(progress):
    hook, runner, kept, text = progress
    hook.after_val_epoch(runner, {"depth/rmse": 0.25, "depth/abs_rel": 0.5})
    (row,) = [json.loads(line) for line in (runner.work_dir / "validations.jsonl").read_text().splitlines()]
    assert row == {"iter": 5, "scores": {"depth/rmse": 0.25, "depth/abs_rel": 0.5}}
    assert kept.points[-1] == (5, {"val/depth/rmse": 0.25, "val/depth/abs_rel": 0.5})
    assert "depth/rmse 0.2500" in text.getvalue()
    assert "abs_rel" not in text.getvalue()


def test_pictures_reach_the_loggers_in_rgb(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    blue, green, red = 10, 20, 30
    cv2.imwrite(str(tmp_path / "pictures" / "a.png"), np.full((2, 3, 3), (blue, green, red), np.uint8))
    (tmp_path / "pictures" / "b.png").write_text("no picture")
    monkeypatch.setattr(tracked_run, "record_summary", lambda record: {"of": record})
    kept = Kept()
    monkeypatch.setattr(tracked_run, "result_files", lambda *_: [])
    tracked_run.log_result(kept, "the record", tmp_path / "iter_7.pth", tmp_path, 7, Attempts())
    assert list(kept.pictures) == ["pictures/a"]
    step, picture = kept.pictures["pictures/a"]
    assert (step, picture.shape, picture[0, 0].tolist()) == (7, (2, 3, 3), [red, green, blue])
    assert kept.summary == {"of": "the record"}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [({}, (20, 30)), ({"train_size": (8, 9)}, (8, 9)), ({"train_size": (8, 9), "eval_size": (6, 7)}, (6, 7))],
)
def test_cost_is_counted_at_the_size_that_is_scored(sizes, expected, monkeypatch):
    """Without a size in the protocol, at that of the first image."""
    protocol = own_protocol("one", {"depth": {}})
    for name, value in sizes.items():
        object.__setattr__(protocol, name, value)
    monkeypatch.setattr(records_file, "measure_cost", lambda network, size, **_: {"size": size})
    data = [SimpleNamespace(image=torch.zeros(3, 20, 30)), None]
    assert records_file._cost(Named(), protocol, data) == {"size": expected}


def test_an_evaluation_loop_without_labels_is_refused():
    with pytest.raises(ValueError, match="the batch with the labels is missing"):
        LoopEvaluator(None).process([{}])


def test_loss_options_of_an_unknown_task_are_refused():
    protocol = own_protocol("two", {"depth": {}, "normals": {}})
    with pytest.raises(UnknownNameError, match="'dept'"):
        tasks_with_losses(protocol, {"dept": {"weight": 2}})
    depth, normals = tasks_with_losses(protocol, {"normals": {"reduction": "sum"}})
    assert depth == protocol.tasks[0]
    assert normals.loss == {**protocol.tasks[1].loss, "reduction": "sum"}


def test_scored_split_is_the_one_asked_for_or_the_one_there_is(tmp_path):
    """`test_data` falls back to `val_data` where a config has none; a record names what was scored."""
    text = discs.CONFIG + '\ntest_data = dict(dataset=dict(type="TinyDiscs", split="test", length=5))\n'
    text = text.replace("pictures=1", "pictures=0").replace("iterations=12", "iterations=2")
    config = load_config(discs.write_config(tmp_path, text))
    train(config, tmp_path / "run")
    checkpoint = tmp_path / "run" / "iter_2.pth"
    found = {
        section: evaluate_checkpoint(config, tmp_path / section, checkpoint, section=section, quiet=True)
        for section in ("test_data", "val_data")
    }
    assert {section: set(record.data) - {"train"} for section, record in found.items()} == {
        "test_data": {"test"},
        "val_data": {"val"},
    }
    without = load_config(discs.write_config(tmp_path))
    record = evaluate_checkpoint(without, tmp_path / "none", checkpoint, section="test_data", quiet=True)
    assert set(record.data) - {"train"} == {"val"}
