"""Eight changes that strangers make: at most one Python file and one config each, at the first attempt.

A decoder in a package, with an installed wheel: `tests/examples/test_outside.py`. A new task and a second
metric for depth: `test_albedo.py` here. Tests that cannot fail: `test_tests_can_fail.py` here.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from trial import CONFIG, Trial, no_plugins

from mtvision.cli.main import command_line
from mtvision.metrics import Depth, InstanceAP, IoU, Saliency, score_images

ROOT = Path(__file__).parents[2]
SYNTHETIC = """
from mmengine.config import read_base

with read_base():
    from mtvision.configs._base_.synthetic_four_tasks import (
        balancer, evaluation, optimizer, protocol, tasks, test_data, train_data, training
    )

model = dict(
    backbone=dict(type="TimmBackbone", name="resnet10t", channels=(8, 16, 24, 32), stem_width=8),
    decoder=dict(type="ParallelDecoder", width=8),
    head=dict(type="ConvHead"),
)
train_data["dataset"].update(length=4, size=(32, 48), cache_dir=None)
test_data["dataset"].update(length=2, size=(32, 48))
evaluation.update(pictures=0)
tasks = ["semseg", "depth"]
balancer = dict(type="FixedWeights")
"""
"""A tiny run that inherits a shipped base by import."""


@pytest.fixture
def trial(tmp_path, monkeypatch):
    with no_plugins(tmp_path, monkeypatch):
        yield Trial(tmp_path, monkeypatch)


def test_inherit_the_configs_of_the_suite(trial, capsys):
    trial.write(SYNTHETIC)
    assert command_line(["cost", CONFIG, "--shape", "32", "48", "--meta"]) == 0
    assert "depth" in capsys.readouterr().out
    trial.check_files()


DECODER = '''
"""A decoder of a stranger."""

from mtvision.core.registry import DECODERS
from mtvision.models.decoders.parallel import ParallelDecoder


@DECODERS.register_module()
class StrangeDecoder(ParallelDecoder):
    """Wider than its parent."""

    def __init__(self, *, width=4, **options):
        super().__init__(width=2 * width, **options)
'''


@pytest.mark.slow
def test_a_decoder_of_ones_own(trial):
    decoder = 'plugins = ["./mine.py"]\nmodel["decoder"] = dict(type="StrangeDecoder", width=4)\n'
    trial.write(SYNTHETIC + decoder, DECODER)
    record = trial.train()
    assert [item["name"] for item in record["plugins"]] == ["mine"]
    assert set(record["scores"]) == {"semseg", "depth"}


@pytest.mark.slow
def test_slim_a_decoder_with_attention(trial):
    """Its properties, width by width: `tests/models/test_declarations.py`."""
    page = (ROOT / "docs" / "slimmable.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class " in block]
    assert "nn.MultiheadAttention" in code
    slim = 'plugins = ["./mine.py"]\nmodel.update(decoder=dict(type="mine.AttentionDecoder", width=16))\n'
    slim += 'model["adapters"] = [dict(type="Slimmable")]\n'
    slim += 'step = dict(type="SandwichStep", encoder=[0.5, 1.0], decoders=[0.5, 1.0], warmup=1)\n'
    trial.write(SYNTHETIC + slim, code)
    record = trial.train()
    assert [item["name"] for item in record["plugins"]] == ["mine"]


DATASET = '''
"""A data set without splits."""

import numpy as np

from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.data.dataset import DenseDataset


@DATASETS.register_module()
class Ramps(DenseDataset):
    """Depth is brightness."""

    def __init__(self, *, brightest=2, protocol=None, seed=0, transforms="tensor"):
        self.brightest = brightest
        ids = [f"{brightest}-{index}" for index in range(4)]
        super().__init__(ids=ids, protocol=protocol, seed=seed, transforms=transforms)

    def read(self, index):
        depth = np.linspace(1, self.brightest + index / 9, 32 * 48, dtype=np.float32).reshape(32, 48, 1)
        image = np.repeat((40 * depth).astype(np.uint8), 3, axis=2)
        meta = Meta(id=self.ids[index], size=(32, 48), original_size=(32, 48))
        return RawSample(image=image, labels={"depth": depth}, tasks=self.tasks, meta=meta)
'''
RAMPS = """
plugins = ["./mine.py"]
protocol = dict(id="ramps", tasks=dict(depth=dict()))
tasks = None
train_data = dict(dataset=dict(type="Ramps", transforms="light"), batch_size=2)
test_data = dict(dataset=dict(type="Ramps", brightest=3), batch_size=2)
"""


@pytest.mark.slow
def test_a_data_set_without_split(trial, capsys):
    trial.write(SYNTHETIC + RAMPS, DATASET)
    record = trial.train()
    assert record["scored"]["split"] == "all"
    assert record["scored"]["images"] == 4
    check = ["check-dataset", CONFIG, "--workers", "1", "--quiet"]
    assert command_line(check) == 0
    assert command_line([*check, "--cfg-options", "test_data.dataset.brightest=2"]) == 1
    assert capsys.readouterr().out.count("error: all, all 2:") == 4  # one per picture


def test_a_data_set_that_calls_its_base_wrongly_is_named(trial, capsys):
    trial.write(SYNTHETIC + RAMPS, DATASET.replace("protocol=protocol, ", ""))
    assert command_line(["train", CONFIG, "--work-dir", "run"]) == 2
    said = capsys.readouterr().err
    assert "test_data.dataset, Ramps: " in said
    assert "'protocol'" in said


def test_a_split_that_a_data_set_does_not_take_is_named(trial, capsys):
    trial.write(SYNTHETIC + RAMPS.replace("brightest=3", 'brightest=3, split="test"'), DATASET)
    assert command_line(["train", CONFIG, "--work-dir", "run"]) == 2
    said = capsys.readouterr().err
    assert "test_data.dataset" in said
    assert "Unknown Ramps argument 'split'" in said


def test_metrics_take_arrays_in_a_notebook():
    """As many images as there are; tensors give the same."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 5, (3, 1, 6, 8)).astype(np.float32)
    guess = truth + np.float32(0.5)
    truth[0, 0, 0, 0] = np.nan
    scores = score_images(Depth(), guess, truth)
    assert scores["abs_err"] == pytest.approx(0.5)
    assert scores == score_images(Depth(), torch.from_numpy(guess), torch.from_numpy(truth))
    classes = rng.integers(0, 3, (2, 6, 8), dtype=np.uint16)
    assert score_images(IoU(num_classes=3), classes[:, ::-1], classes[:, ::-1])["miou"] == 1
    with pytest.raises(ValueError, match="at index|shorter|longer"):
        score_images(Depth(), guess, truth[:2])
    with pytest.raises(ValueError, match="there are no sums"):
        score_images(Depth(), [], [])


@pytest.mark.parametrize(
    ("metric", "prediction"),
    [
        (Depth(), np.ones((1, 4, 4))),
        (Saliency(), np.ones((1, 4, 4))),
        (IoU(num_classes=2), np.ones((4, 4), int)),
        (InstanceAP(num_classes=2), np.ones((2, 4, 4))),
    ],
    ids=lambda item: type(item).__name__,
)
def test_an_array_in_a_single_measurement_is_told_where_to_go(metric, prediction):
    with pytest.raises(TypeError, match=r"the prediction is a numpy.ndarray.*score_images.* takes arrays"):
        metric.measure(prediction, prediction[0] if prediction.ndim == 3 else prediction)
