"""Whole runs on two CPU processes: means over all of them, a sick process, another number on resume."""

from __future__ import annotations

import json

import data_problems as problems
import discs
import pytest
import torch
from several_processes import attempt, tool

from mtvision.core.non_finite import non_finite
from mtvision.runtime.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
TEXT = discs.CONFIG.replace('type="DropoutNet"', 'type="DropoutNet", norm="group"').replace(
    'type="ParallelDecoder"', 'type="ParallelDecoder", norm="group"'
)
LACKING = "train_data.dataset.without_depth=[0,2,4,6,8,10]"
OPTIONS = ("training.iterations=4", "training.val_interval=0", "optimizer.type=SGD", "optimizer.lr=0.05")


def train(folder, processes, *options, config=None, resume=False):
    config = config or discs.write_config(folder.parent, TEXT)
    arguments = ["--resume"] if resume else []
    tool(processes, "train", config, "--work-dir", folder, *arguments, "--cfg-options", *OPTIONS, *options)
    return json.loads((folder / "record.json").read_text())


def rows(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def weights(folder, step=4):
    content = load_checkpoint(folder / f"iter_{step}.pth")["state_dict"]
    return {name: value for name, value in content.items() if torch.is_tensor(value)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """{processes: folder of a run on the same four images a step, half of which lack depth}."""
    root = tmp_path_factory.mktemp("trained")
    for n in (1, 2):
        train(root / str(n), n, LACKING, f"train_data.batch_size={4 // n}")
    return {n: root / str(n) for n in (1, 2)}


@pytest.mark.fault(
    "ranks have unequal numbers of labels", expected="weights and losses.jsonl are those of one process"
)
def test_unequal_labels_train_alike_on_one_process_and_on_two(trained, tmp_path):
    """Half of the images lack depth; the losses in the log are those of the whole batch."""
    torch.testing.assert_close(weights(trained[2]), weights(trained[1]), rtol=1e-4, atol=1e-6)
    for one, two in zip(rows(trained[1]), rows(trained[2]), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    for folder in trained.values():
        record = json.loads((folder / "record.json").read_text())
        assert (record["training"]["loss_means"], record["effective_batch"]) == ("global", 4)
    rank = ["train_data.batch_size=2", LACKING, "training.loss_means=rank"]
    assert train(tmp_path / "rank", 2, *rank)["training"]["loss_means"] == "rank"
    apart = (weights(tmp_path / "rank")[name] - item for name, item in weights(trained[1]).items())
    assert max(float(item.abs().max()) for item in apart) > 1e-4


@pytest.mark.fault("an infinite label at one rank", expected="all ranks stop")
def test_a_label_that_makes_one_process_infinite_stops_both(tmp_path):
    config = discs.write_config(tmp_path, TEXT)
    options = [*OPTIONS, "train_data.dataset.broken=3", "train_data.batch_size=6"]  # all images in each step
    done = attempt(2, "train", config, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert done.returncode != 0
    assert not (tmp_path / "run" / "record.json").exists()
    assert "iteration 1: loss of depth is inf; samples: disc-3." in done.stderr
    assert "No checkpoint was written before this." in done.stderr
    assert not list((tmp_path / "run").glob("*.pth"))


@problems.RESUME_SAID
@pytest.mark.fault(
    "resumed on another number of ranks", expected="said and recorded; --keep-batch keeps the batch"
)
def test_another_number_of_processes_on_resume_is_said_and_recorded(tmp_path):
    folder = tmp_path / "run"
    train(folder, 2, "train_data.batch_size=2", "training.iterations=2")
    config = discs.write_config(tmp_path, TEXT)
    (folder / "record.json").unlink()
    options = [*OPTIONS, "train_data.batch_size=3"]
    done = attempt(1, "train", config, "--work-dir", folder, "--resume", "--cfg-options", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    sentence = "The batch changed on resume: 4 images per step (2 x 2), after iteration 2 3 (1 x 3)."
    assert sentence in done.stderr
    record = json.loads((folder / "record.json").read_text())
    assert sentence in record["notes"]
    assert (record["world_size"], record["effective_batch"]) == (1, 3)
    meta = load_checkpoint(folder / "iter_4.pth")["meta"]
    assert meta["batches"] == [
        {"after": 0, "processes": 2, "images": 2},
        {"after": 2, "processes": 1, "images": 3},
    ]
    assert non_finite(weights(folder).items()) == {}


@pytest.mark.fault(
    "images do not divide by the ranks", expected="predictions are those of one process, bit for bit"
)
def test_predictions_of_two_processes_are_those_of_one_bit_for_bit(trained, tmp_path):
    """Seven images in batches of three: every process gets whole batches."""
    config = discs.write_config(tmp_path, TEXT)
    for processes in (1, 2):
        out = tmp_path / f"predictions{processes}"
        arguments = ["--work-dir", tmp_path / f"test{processes}", "--save-predictions", out]
        tool(processes, "test", config, trained[2] / "iter_4.pth", *arguments)
        record = json.loads((tmp_path / f"test{processes}" / "record.json").read_text())
        assert (record["world_size"], record["effective_batch"]) == (2, 4), "of the training, not of the test"
        assert not any("changed" in note for note in record["notes"])
    first, second = (
        {path.relative_to(base): path.read_bytes() for path in sorted(base.rglob("*.npy"))}
        for base in (tmp_path / "predictions1", tmp_path / "predictions2")
    )
    assert len(first) == 7
    assert first == second
    scores = [json.loads((tmp_path / f"test{n}" / "record.json").read_text())["scores"] for n in (1, 2)]
    assert scores[0] == scores[1]
