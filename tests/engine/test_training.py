"""Whole runs on a tiny data set: they learn, repeat, resume exactly, and fail with one clear message."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import discs
import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.sample import Batch
from mtvision.engine.module import TrainingModule
from mtvision.engine.parts import split
from mtvision.engine.training import evaluate_checkpoint, train
from mtvision.losses.task_losses import NonFiniteLossError
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint
from mtvision.runtime.signals import TrainingInterruptedError


def run(folder: Path, name: str, *options: str, **arguments):
    config = load_config(discs.write_config(folder), options)
    return train(config, folder / name, **arguments)


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int = 12) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder / f"iter_{step}.pth")["state_dict"]
    return {name: value for name, value in state.items() if torch.is_tensor(value)}


def test_two_runs_with_one_seed_are_identical_and_another_seed_differs(tmp_path):
    run(tmp_path, "a")
    run(tmp_path, "b")
    run(tmp_path, "c", "seed=1")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a")[0] != losses(tmp_path / "c")[0]


def test_learning_rate_is_poly(tmp_path):
    run(tmp_path, "a")
    expected = [1e-2 * (1 - step / 12) ** 0.9 for step in range(12)]
    assert [row["lr"] for row in losses(tmp_path / "a")] == pytest.approx(expected, rel=1e-6)


VARIANTS = {
    "plain": (),
    "average": ("training.ema=0.1",),
    "bf16": ("training.precision=bf16",),
    "uncertainty": ("balancer.type=Uncertainty", "training.micro_batches=2"),
    "upgrad": ("balancer.type=UPGrad", "training.clip_grad=1.0"),
    "workers": ("train_data.num_workers=1",),
}


SLOW = {"workers", "bf16", "uncertainty", "upgrad"}  # one after another they take ten seconds


@pytest.mark.conformance("{id}", "resume")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, options in VARIANTS.items()
    ],
)
def test_resuming_equals_an_uninterrupted_run(tmp_path, options, monkeypatch):
    whole = run(tmp_path, "whole", *options)
    steps = iter(range(1, 99))
    original = TrainingModule.train_step

    def interrupt(self, batch, optim_wrapper):
        outputs = original(self, batch, optim_wrapper)
        if next(steps) == 7:
            signal.raise_signal(signal.SIGINT)
        return outputs

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "train_step", interrupt)
        with pytest.raises(TrainingInterruptedError, match="after iteration 7.*--resume"):
            run(tmp_path, "cut", *options)
    joined = run(tmp_path, "cut", *options, resume="auto")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    torch.testing.assert_close(weights(tmp_path / "cut"), weights(tmp_path / "whole"), rtol=0, atol=0)
    assert joined.scores == whole.scores


@pytest.mark.slow
def test_a_killed_run_resumes_from_the_last_checkpoint(tmp_path, monkeypatch):
    run(tmp_path, "whole")
    steps = iter(range(1, 99))
    original = TrainingModule.train_step

    def die(self, batch, optim_wrapper):
        if next(steps) == 9:
            raise MemoryError("killed")
        return original(self, batch, optim_wrapper)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "train_step", die)
        with pytest.raises(MemoryError):
            run(tmp_path, "cut")
    with (tmp_path / "cut" / "losses.jsonl").open("a") as file:
        file.write('{"iter": 9, "half a li')
    run(tmp_path, "cut", resume="auto")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_resuming_decodes_nothing_twice(tmp_path, monkeypatch):
    run(tmp_path, "a", "training.iterations=5", "training.val_interval=0")
    read = []
    original = discs.TinyDiscs.read
    monkeypatch.setattr(discs.TinyDiscs, "read", lambda self, i: read.append(self.split) or original(self, i))
    run(tmp_path, "a", "training.iterations=6", "training.val_interval=0", resume="auto")
    assert read.count("train") == 4


def test_an_earlier_run_is_not_overwritten_by_accident(tmp_path):
    run(tmp_path, "a")
    with pytest.raises(FileExistsError, match="holds an earlier run.*--resume.*--overwrite"):
        run(tmp_path, "a")
    run(tmp_path, "a", overwrite=True)


def test_micro_batches_give_the_same_gradient(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
    options = ("model.backbone.norm=group", "model.decoder.norm=group", "training.val_interval=0")
    for parts in (1, 2, 4):
        run(tmp_path, f"{parts}", *options, "training.iterations=3", f"training.micro_batches={parts}")
    for parts in (2, 4):
        for row, other in zip(losses(tmp_path / "1"), losses(tmp_path / f"{parts}"), strict=True):
            assert row == pytest.approx(other, rel=2e-4)


@pytest.mark.conformance("parallel", "partial labels")
def test_partial_labels_train(tmp_path):
    record = run(tmp_path, "a", "train_data.dataset.without_depth=(0,1,2,3,4,5,6,7,8)")
    assert record.scores["depth"]["rmse"] > 0
    rows = losses(tmp_path / "a")
    assert all("loss/semseg" in row for row in rows)
    assert 0 < sum("loss/depth" in row for row in rows) < len(rows)


JOINT = """
train_data = dict(
    dataset=dict(
        type="JointDataset",
        parts=[
            dict(type="TinyDiscs", name="rooms", tasks=["semseg"]),
            dict(type="TinyDiscs", name="streets", tasks=["depth"], length=3),
        ],
        ratios=[2, 1],
        mixing="MIXING",
    ),
    batch_size=4,
)
"""


@pytest.mark.parametrize("mixing", ["mixed", "homogeneous"])
def test_two_data_sets_with_different_labels_train_together(tmp_path, mixing):
    config = load_config(discs.write_config(tmp_path, discs.CONFIG + JOINT.replace("MIXING", mixing)))
    record = train(config, tmp_path / "a")
    assert record.scores["depth"]["rmse"] > 0
    assert record.scores["semseg"]["miou"] > 0
    tasks = [
        {name for name in ("semseg", "depth") if f"loss/{name}" in row} for row in losses(tmp_path / "a")
    ]
    expected = [{"semseg"}, {"depth"}, {"semseg"}] if mixing == "homogeneous" else [{"semseg", "depth"}] * 3
    assert tasks == expected * 4
    assert record.data["train"]["images"] == 15


def test_single_task_network(tmp_path):
    record = run(tmp_path, "a", "tasks=['depth']")
    assert list(record.scores) == ["depth"]
    assert "loss/semseg" not in losses(tmp_path / "a")[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    steps = iter(range(1, 99))
    original = TrainingModule.forward

    def poison(self, batch, counts=None):
        if next(steps) == 8:
            batch.image[1] = torch.nan
        return original(self, batch, counts)

    monkeypatch.setattr(TrainingModule, "forward", poison)
    with pytest.raises(NonFiniteLossError) as caught:
        run(tmp_path, "a", "model.backbone.norm=group", "model.decoder.norm=group")
    poisoned = list(caught.value.ids["depth"])
    assert len(poisoned) == 1
    assert poisoned[0] in str(caught.value)
    assert "semseg" in caught.value.tasks
    assert load_checkpoint(tmp_path / "a" / "iter_5.pth")["meta"]["iter"] == 5


def test_checkpoint_of_another_architecture(tmp_path):
    run(tmp_path, "a")
    other = load_config(discs.write_config(tmp_path), ["model.backbone.width=16"])
    with pytest.raises(
        CheckpointError, match=r"another architecture[\s\S]*of another shape[\s\S]*DropoutNet"
    ):
        evaluate_checkpoint(other, tmp_path / "b", tmp_path / "a" / "iter_12.pth")
    with pytest.raises(CheckpointError, match="does not fit this config"):
        train(other, tmp_path / "a", resume="auto")


def test_unknown_names_are_reported_with_near_ones(tmp_path):
    for option, near in (
        ("model.decoder.type=ParalelDecoder", "ParallelDecoder"),
        ("balancer.type=Uncertanty", "Uncertainty"),
        ("train_data.dataset.type=TinyDisc", "TinyDiscs"),
        ("optimizer.type=AdmW", "AdamW"),
        ("model.decoder.widt=3", "width"),
    ):
        with pytest.raises(UnknownNameError, match=f"Did you mean .*'{near}'"):
            run(tmp_path, "a", option)


def test_task_without_a_head(tmp_path):
    text = discs.CONFIG.replace('head=dict(type="ConvHead")', 'heads=dict(depth=dict(type="ConvHead"))')
    with pytest.raises(ValueError, match="task 'semseg' has no head"):
        train(load_config(discs.write_config(tmp_path, text)), tmp_path / "a")


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch_size(tmp_path):
    run(tmp_path, "a")
    records = [
        evaluate_checkpoint(
            load_config(discs.write_config(tmp_path), [f"val_data.batch_size={size}"]),
            tmp_path / f"b{size}",
            tmp_path / "a" / "iter_12.pth",
        )
        for size in (1, 7)
    ]
    for task, values in records[0].scores.items():
        assert values == pytest.approx(records[1].scores[task], rel=1e-6)


def test_split_keeps_every_sample_once():
    batch = Batch(
        image=torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2),
        labels={"depth": torch.zeros(5, 1, 2, 2)},
        present={"depth": torch.tensor([True, False, False, False, False])},
        meta=list("abcde"),
    )
    parts = split(batch, 3)
    assert [part.meta for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    assert [list(part.labels) for part in parts] == [["depth"], [], []]
    assert torch.equal(torch.cat([part.image for part in parts]), batch.image)
