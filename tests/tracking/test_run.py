"""Ids, groups, predictions with masks and artifacts: what each tracker is told."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import discs
import numpy as np
import pytest
import torch

from mtvision.core.sample import Batch, Meta
from mtvision.engine.run_dir.books import Books
from mtvision.engine.run_dir.start import discard
from mtvision.engine.tracked.predictions import predicted_image
from mtvision.engine.tracked.run import facts_of
from mtvision.recipe.config import load_config
from mtvision.recipe.sections import LoggingSettings
from mtvision.recipe.settings import Settings
from mtvision.tracking.loggers import Loggers
from mtvision.tracking.run import RunFacts, RunFile
from mtvision.tracking.run_id import RUN_ID_FILE, grid_of, run_id_of, write_grid


def books(folder, keeps=True):
    folder.mkdir(parents=True, exist_ok=True)
    return Books(folder, hosts=["a"], images=1, about={}, keeps=keeps)


def test_every_folder_has_an_id_of_its_own(tmp_path):
    one, other = tmp_path / "machine1" / "run", tmp_path / "machine2" / "run"
    ids = [books(folder).run_id for folder in (one, other)]
    assert len(set(ids)) == 2  # a hash of equal paths on two machines would be one
    assert (one / RUN_ID_FILE).read_text() == ids[0] + "\n"
    one.rename(tmp_path / "moved")
    assert books(tmp_path / "moved").run_id == ids[0]
    discard(other)
    assert books(other).run_id not in ids


def test_a_run_of_an_earlier_version_keeps_its_id(tmp_path):
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "001.json").write_text('{"run_id": "abc"}')
    assert books(tmp_path, keeps=False).run_id == "abc"
    assert not (tmp_path / RUN_ID_FILE).exists()
    books(tmp_path)
    assert (tmp_path / RUN_ID_FILE).read_text() == "abc\n"


def test_a_run_of_a_sweep_has_the_id_of_the_agent(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "from-agent")
    assert run_id_of(tmp_path / "alone") != "from-agent"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert run_id_of(tmp_path / "swept") == "from-agent"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert run_id_of(tmp_path / "swept") == "from-agent"  # also when it is resumed by hand


def facts(folder, work_dir, *options):
    config = load_config(discs.write_config(folder), list(options))
    return facts_of(config, Settings.of(config), work_dir, "id")


def test_seeds_share_a_group_and_runs_of_a_grid_a_tag(tmp_path):
    grid = write_grid(tmp_path / "launch", "ablation")
    assert write_grid(tmp_path / "launch", "renamed") == grid
    work_dir = tmp_path / "launch" / "a_seed0"
    one, other = (facts(tmp_path, work_dir, "name=a", f"seed={seed}") for seed in (0, 1))
    assert one.group == other.group
    assert one.group.startswith("a ")
    assert facts(tmp_path, work_dir, "name=a", "optimizer.lr=0.5").group != one.group
    assert facts(tmp_path, work_dir, "logging.group=mine").group == "mine"
    assert one.grid == grid_of(work_dir) == {"id": grid, "name": "ablation"}
    assert list(one.tags) == ["discs", "DropoutNet", "grid ablation"]
    assert one.higher_is_better == {"semseg/miou": True, "depth/rmse": False}
    alone = facts(tmp_path, tmp_path / "alone" / "run", "logging.tags=['mine']")
    assert (alone.grid, list(alone.tags)) == ({}, ["discs", "DropoutNet", "mine"])


class Calls:
    """A client of any kind that records its calls; attributes are clients as well."""

    def __init__(self, calls, path=""):
        self._calls, self._path = calls, path

    def __getattr__(self, name):
        return Calls(self._calls, f"{self._path}.{name}" if self._path else name)

    def __call__(self, *arguments, **options):
        self._calls.append((self._path, arguments, options))
        return Calls(self._calls, self._path)


@pytest.fixture
def image():
    """A sample of 4x6 with two columns of padding; the class map is half the size."""
    meta = Meta(id="a/1", size=(4, 6), original_size=(4, 6), padding=(0, 0, 0, 2))
    labels = {
        "semseg": torch.zeros(1, 4, 8, dtype=torch.int64),
        "depth": torch.ones(1, 1, 4, 8),
    }
    labels["semseg"][0, 0, 0] = 255
    batch = Batch(
        image=torch.zeros(1, 3, 4, 8),
        labels=labels,
        present={name: torch.ones(1, dtype=torch.bool) for name in labels},
        meta=[meta],
    )
    prediction = {"semseg": torch.ones(4, 8, dtype=torch.int64), "depth": torch.full((1, 4, 8), 2.0)}
    return predicted_image(batch, 0, prediction, discs.PROTOCOL.tasks)


def test_a_predicted_image_has_masks_without_padding(image):
    assert image.image.shape == (4, 6, 3)
    mask = image.masks["semseg"]
    assert (mask.prediction.shape, mask.prediction.dtype) == ((4, 6), np.uint8)
    assert (mask.prediction == 1).all()
    assert (mask.label[0, 0], mask.label[1, 1], mask.classes) == (255, 0, ("ground", "disc"))
    assert image.pictures["depth"].shape == (4, 6, 3)
    assert image.panel.shape[2] == 3


def told(settings, folder, image, files=()):
    loggers = Loggers(
        settings,
        folder,
        RunFacts(
            name="a", run_id="id", config={"optimizer": {"lr": 0.1}}, group="rows", grid={"id": "g"},
            tags=["t"], higher_is_better={"semseg/miou": True, "depth/rmse": False},
        ),
    )  # fmt: skip
    loggers.scalars({"loss/depth": 1.5}, 3)
    for step in (3, 6):
        loggers.predictions(lambda: [image], step)
    loggers.finish({"depth/rmse": 0.5}, files)
    assert loggers.failures == []


@pytest.fixture
def files(tmp_path):
    found = [RunFile(tmp_path / "record.json", "record", {"seed": 0}), RunFile(tmp_path / "w", "checkpoint")]
    for item in found:
        item.path.write_text("{}")
    return found


def test_what_wandb_is_told(tmp_path, monkeypatch, image, files):
    calls = []
    client = Calls(calls)
    client.Settings = type("Settings", (), {"model_fields": {}})
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("mtvision.tracking.wandb_run.import_wandb", lambda: client)
    told(LoggingSettings(wandb=True, artifacts="checkpoint"), tmp_path, image, files)
    by_name = {}
    for name, arguments, options in calls:
        by_name.setdefault(name.removeprefix("init."), []).append((arguments, options))
    ((_, start),) = by_name["init"]
    assert {key: start[key] for key in ("id", "group", "tags", "job_type")} == {
        "id": "id", "group": "rows", "tags": ["t"], "job_type": "train"
    }  # fmt: skip
    assert start["config"] == {"optimizer": {"lr": 0.1}, "grid": {"id": "g"}}
    assert by_name["define_metric"] == [
        (("iteration",), {"hidden": True}),
        (("*",), {"step_metric": "iteration"}),
        (("val/semseg/miou",), {"step_metric": "iteration", "summary": "max"}),
        (("val/depth/rmse",), {"step_metric": "iteration", "summary": "min"}),
    ]
    assert by_name["log"][0] == (({"loss/depth": 1.5, "iteration": 3},), {"step": 3})
    assert [list(logged[0]) for logged, _ in by_name["log"][1:]] == [
        ["predictions/a/1", "predictions/table", "iteration"]
    ] * 2
    tables = [options for _, options in by_name["Table"]]
    assert tables[0]["columns"] == ["iteration", "image id", "image", "depth"]
    assert [[row[:2] for row in table["data"]] for table in tables] == [
        [[3, "a/1"]], [[3, "a/1"], [6, "a/1"]]
    ]  # fmt: skip
    masks = next(options["masks"] for _, options in by_name["Image"] if "masks" in options)
    assert masks.keys() == {"semseg prediction", "semseg label"}
    assert masks["semseg label"]["class_labels"] == {0: "ground", 1: "disc", 255: "no label"}
    assert [(name, options["type"]) for (name,), options in by_name["Artifact"]] == [
        ("record-id", "record"), ("checkpoint-id", "model")
    ]  # fmt: skip
    assert [options["name"] for _, options in by_name["Artifact.add_file"]] == ["record.json", "w"]
    assert len(by_name["log_artifact"]) == 2
    assert calls[-1][0] == "init.finish"


@pytest.mark.parametrize(("earlier", "started"), [([], (None, "a")), (["m1"], ("m1", None))])
def test_what_mlflow_is_told(tmp_path, monkeypatch, image, files, earlier, started):
    calls = []
    client = Calls(calls)
    client.search_runs = lambda **options: [
        SimpleNamespace(info=SimpleNamespace(run_id=name)) for name in earlier
    ]
    monkeypatch.setitem(sys.modules, "mlflow", client)
    told(LoggingSettings(mlflow=True), tmp_path, image, files)
    names = [name for name, _, _ in calls]
    settings = [] if earlier else ["log_params"]
    assert names == [
        "set_experiment", "start_run", *settings, "log_metrics", "log_image", "log_image", "log_metrics",
        "log_artifact", "end_run",
    ]  # fmt: skip
    options = dict(zip(names, [options for _, _, options in calls], strict=True))
    assert (options["start_run"]["run_id"], options["start_run"]["run_name"]) == started
    assert options["start_run"]["tags"] == {"run_id": "id", "group": "rows", "grid.id": "g", "t": "true"}
    keys = [options["key"] for name, _, options in calls if name == "log_image"]
    assert keys == ["predictions.a.1"] * 2


def test_predictions_that_cannot_be_drawn_end_nothing(tmp_path):
    loggers = Loggers(LoggingSettings(), tmp_path, RunFacts(name="a", config={}, run_id="id"))
    loggers.predictions(lambda: 1 / 0, 4)
    (line,) = loggers.failures
    assert line.startswith("predictions of iteration 4 in the loggers: ZeroDivisionError")
