"""Change trial: tasks of one's own from one Python file and one config, at the first attempt."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from trial import no_plugins

from mtvision.cli.main import command_line
from mtvision.core.naming import UnknownNameError
from mtvision.recipe.check import check_config
from mtvision.recipe.config import load_config
from mtvision.report.record import Record
from mtvision.runtime.checkpoint import load_checkpoint

MODULE = '''
"""Albedo: its loss and its metric; and a second metric for depth."""

from dataclasses import dataclass
from math import nan

import torch

from mtvision.core.registry import LOSSES, METRICS
from mtvision.metrics import Metric


@LOSSES.register_module()
class AlbedoLoss(torch.nn.Module):
    """Mean absolute error of colours, and of what is left when brightness is taken out."""

    def __init__(self, chroma=0.5):
        super().__init__()
        self.chroma = chroma

    def forward(self, logits, label):
        valid = label.isfinite().all(dim=1, keepdim=True).expand_as(label)
        error = torch.where(valid, logits - torch.nan_to_num(label), 0)
        chroma = error - error.mean(dim=1, keepdim=True)
        return (error.abs() + self.chroma * chroma.abs()).sum() / valid.sum().clamp(min=1)


@METRICS.register_module("whdr")
@dataclass(frozen=True, kw_only=True)
class BrightnessOrder(Metric):
    """Share of neighbouring pixels whose order of brightness is wrong."""

    margin: float = 0.02

    def measure(self, prediction, label):
        truth = label.mean(dim=0).diff(dim=1)
        wrong = (prediction.mean(dim=0).diff(dim=1) * truth <= 0) & (truth.abs() > self.margin)
        return {"wrong": wrong.sum(), "pairs": (truth.abs() > self.margin).sum()}

    def score(self, sums):
        return {"whdr": float(sums["wrong"]) / int(sums["pairs"]) if sums["pairs"] else nan}


@METRICS.register_module("bias")
@dataclass(frozen=True, kw_only=True)
class Bias(Metric):
    """How much too far depth is on average."""

    ranges = {"bias": (-100.0, 100.0), "size": (0.0, None)}
    higher_is_better = {"size": False}
    nearest: float = 0.0

    def measure(self, prediction, label):
        valid = label > self.nearest
        return {"sum": (prediction - label)[valid].double().sum(), "pixels": valid.sum()}

    def score(self, sums):
        bias = float(sums["sum"]) / int(sums["pixels"]) if sums["pixels"] else nan
        return {"bias": bias, "size": abs(bias)}
'''

CONFIG = """
plugins = ["./albedo.py"]
protocol = dict(
    id="intrinsic",
    tasks=dict(
        albedo=dict(
            label="values",
            label_channels=3,
            loss=dict(type="AlbedoLoss", chroma=1.0),
            metrics=["values", dict(type="whdr", margin=0.05)],
            headline="whdr",
            higher_is_better=False,
        ),
        near=dict(type="depth", max_depth=3, metrics=["depth", "bias"], colours="gray"),
        far=dict(type="depth", unit="feet", headline="abs_rel", higher_is_better=False),
        rooms=dict(type="semseg", class_names=["floor", "wall", "door"]),
        material=dict(class_names=["wood", "stone"], palette=[[120, 80, 40], [128, 128, 128]]),
    ),
)
model = dict(
    backbone=dict(type="mtvision.testing.inputs.ToyBackbone", channels=[4, 8], strides=[4, 8]),
    decoder=dict(type="ParallelDecoder", width=8),
    head=dict(type="ConvHead"),
    heads=dict(far=dict(type="ConvHead", hidden=4)),
)
folders = dict(
    albedo="albedo",
    near=dict(folder="depth", scale=1000),
    far=dict(folder="depth", scale=1000),
    rooms="rooms",
    material=dict(folder="rooms", ids={0: 0, 1: 1, 2: 0}),
)
train_data = dict(dataset=dict(type="FolderDataset", root="data", labels=folders), batch_size=2)
val_data = dict(dataset=dict(type="FolderDataset", root="data", labels=folders, split="val"), batch_size=2)
test_data = dict(dataset=dict(type="FolderDataset", root="data", labels=folders, split="test"), batch_size=2)
del folders
optimizer = dict(type="AdamW", lr=1e-3)
training = dict(iterations=2, val_interval=1, loss_options=dict(albedo=dict(chroma=0.25)))
evaluation = dict(
    pictures=1,
    constant_predictor=2,
    metric_options=dict(near=dict(bias=dict(nearest=0.5)), far=dict(max_depth=9)),
    baseline=dict(albedo=0.5, near=1.0, far=1.0, rooms=0.5, material=0.5),
)
"""
TASKS = ("albedo", "near", "far", "rooms", "material")


def write_files(folder: Path) -> None:
    """The module, the config, and a data set of two images."""
    (folder / "albedo.py").write_text(MODULE)
    (folder / "own.py").write_text(CONFIG)
    rng = np.random.default_rng(0)
    for name in ("images", "albedo", "depth", "rooms"):
        (folder / "data" / name).mkdir(parents=True)
    for index in range(2):
        colours = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        for name, array in {
            "images": colours, "albedo": colours // 2,
            "depth": rng.integers(500, 9000, (16, 24)).astype(np.uint16),
            "rooms": rng.integers(0, 3, (16, 24)).astype(np.uint8),
        }.items():  # fmt: skip
            cv2.imwrite(str(folder / "data" / name / f"{index}.png"), array)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with module, config and data; afterwards, the plugin is forgotten."""
    folder = tmp_path_factory.mktemp("lab")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch, no_plugins(folder, patch):
        yield folder


@pytest.fixture(scope="module")
def lab(files):
    """The folder after one `mtvision train`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(files)
        assert command_line(["train", "own.py", "--work-dir", "run"]) == 0
    return files


@pytest.fixture(scope="module")
def record(lab):
    return Record.load(lab / "run" / "record.json")


MISTAKES = {
    "protocol.tasks.near.colours='grey'": "near.colours: Unknown colours 'grey'. Did you mean 'gray'",
    "protocol.tasks.albedo.loss.chrom=1": "protocol.tasks.albedo: loss: Unknown AlbedoLoss argument 'chrom'",
    "protocol.tasks.near.headline='bia'": "protocol.tasks.near: headline='bia' needs higher_is_better",
    "protocol.tasks.near.metrics=['depth','values']": "protocol.tasks.near: metrics 'depth' and 'values'",
    "protocol.tasks.near.metrics=['depth','bais']": "tasks.near: metrics: type: Unknown metric 'bais'",
    "protocol.tasks.far.headline='rmes'": "protocol.tasks.far: headline 'rmes' of task 'far' is no score",
    "evaluation.metric_options.near.bias.nearst=1": "near.nearst: Unknown Bias argument 'nearst'",
    "evaluation.during_training={'near':{'clmp':1}}": "near.clmp: Unknown Depth argument 'clmp'",
    "training.loss_options={'fra':{}}": "training.loss_options 'fra'. Did you mean 'far'",
    "model.heads={'fra':{'type':'ConvHead'}}": "model.heads.fra: Unknown task in model.heads 'fra'.",
}


@pytest.mark.parametrize("option", MISTAKES)
def test_mistakes_are_told_before_training(option, files):
    with pytest.raises((UnknownNameError, ValueError), match=re.escape(MISTAKES[option])):
        check_config(load_config(files / "own.py", [option]))


def test_everything_is_scored_and_nothing_is_missing(record):
    assert record.missing == record.failures == []
    assert record.task_names == TASKS
    assert set(record.scores["albedo"]) == {"mae", "rmse", "whdr"}
    assert {"rmse", "abs_rel", "bias", "size"} <= set(record.scores["near"])
    assert record.scores["near"]["size"] == abs(record.scores["near"]["bias"])
    assert "bias" not in record.scores["far"]
    assert set(record.scores["rooms"]) == set(record.scores["material"]) == {"miou", "pixel_accuracy"}
    assert set(record.constant["near"]) == set(record.scores["near"])
    assert set(record.gain["parts"]) == set(TASKS)


def test_the_record_says_how(record):
    albedo, near, far = (record.task(name) for name in ("albedo", "near", "far"))
    assert (albedo["metric"], albedo["headline"]) == ("values", "whdr")
    assert albedo["further_metrics"] == [{"metric": "whdr", "metric_options": {"margin": 0.05}}]
    assert near["metric_options"] == {"max_depth": 3}
    assert near["further_metrics"] == [{"metric": "bias", "metric_options": {"nearest": 0.5}}]
    assert near["evaluator"] == "protocol with bias.nearest=0.5"
    assert near["directions"] == {"size": False}
    assert (far["evaluator"], far["unit"]) == ("protocol with max_depth=9", "feet")
    assert "further_metrics" not in far


def test_tasks_of_one_kind_have_losses_and_heads_of_their_own(lab):
    lines = [json.loads(line) for line in (lab / "run" / "losses.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(f"loss/{task}" in lines[0] for task in TASKS)
    weights = load_checkpoint(lab / "run" / "iter_2.pth")["state_dict"]
    channels = {task: len(weights[f"network.heads.{task}.logits.weight"]) for task in TASKS}
    assert channels == {"albedo": 3, "near": 1, "far": 1, "rooms": 3, "material": 2}
    assert "network.heads.far.hidden.0.weight" in weights
    assert "network.heads.near.hidden.0.weight" not in weights


def test_the_second_metric_is_evaluated_during_training(lab):
    lines = (lab / "run" / "validations.jsonl").read_text().splitlines()
    assert {"near/bias", "albedo/whdr", "far/rmse"} <= json.loads(lines[0])["scores"].keys()


def test_pictures(lab):
    (picture,) = (lab / "run" / "pictures").glob("*.png")
    assert cv2.imread(str(picture)).shape[1] > len(TASKS) * 256


def test_table(lab, record, capsys):
    columns = ["method", "albedo", "albedo/mae", "near/bias", "near/size", "far", "material"]
    assert command_line(["table", str(lab / "run"), "--format", "csv", "--columns", *columns]) == 0
    head, _, row = csv.reader(capsys.readouterr().out.splitlines())
    assert head[2:5] == ["albedo/whdr", "albedo/mae", "near/bias"]
    scores = [record.scores[task][score] for task, _, score in (name.partition("/") for name in head[2:])]
    assert [float(value) for value in row[2:]] == scores
    assert command_line(["table", str(lab / "run"), "--format", "markdown", "--columns", *columns]) == 0
    text = capsys.readouterr().out
    assert "albedo whdr ↓" in text  # the headline
    assert "near size ↓" in text  # the metric says it
    assert "near bias |" in text


def test_page(lab, tmp_path, capsys):
    site = tmp_path / "site"
    assert command_line(["leaderboard", "build", str(lab / "run"), "--out", str(site)]) == 0
    text = "".join(
        path.read_text() for path in sorted(site.rglob("*.*")) if path.suffix in (".html", ".js", ".json")
    )
    for name in ("whdr", "bias", "size"):
        assert f'"score":"{name}"' in text.replace('": "', '":"')
    assert command_line(["leaderboard", "check", str(lab / "run")]) == 0, capsys.readouterr()
