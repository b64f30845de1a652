"""Starts at the scale of the data: own depth of 2 to 60 m is learned within 50 steps."""

from __future__ import annotations

import json
import shutil

import data_problems as problems
import discs
import numpy as np
import pytest
import torch

from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.data.dataset import DenseDataset
from mtvision.engine.building import training_module
from mtvision.engine.start.from_data import UNIFORM, apply_starts, start_of, starts_of
from mtvision.engine.training import train
from mtvision.losses.task_losses import TaskLosses
from mtvision.protocols import tasks
from mtvision.recipe.building import network_of
from mtvision.recipe.check import check_config
from mtvision.recipe.config import load_config
from mtvision.recipe.differences import ResumeError
from mtvision.recipe.settings import Settings
from mtvision.runtime.checkpoint import load_checkpoint


@DATASETS.register_module()
class FarStrips(DenseDataset):
    """Four strips at 2 to 60 m; what is far is dark."""

    def __init__(self, *, length=12, **options):
        super().__init__(ids=[f"{options['split']}-{index}" for index in range(length)], **options)

    def read(self, index):
        rng = np.random.default_rng([index, len(self.split)])
        depth = np.repeat(rng.uniform(2, 60, 4), 8)[None, :, None] + np.zeros((32, 1, 1))
        noise = rng.normal(0, 5, (32, 32, 3))
        image = np.clip(250 - 4 * depth + noise, 0, 255).astype(np.uint8)
        labels = {"depth": depth.astype(np.float32)}
        meta = Meta(id=self.ids[index], size=(32, 32), original_size=(32, 32))
        return RawSample(image=image, labels=labels, tasks=self.tasks, meta=meta)


CONFIG = """
protocol = dict(id="far", tasks=dict(depth=dict()))
model = dict(
    backbone=dict(type="DropoutNet"),
    decoder=dict(type="ParallelDecoder", width=16),
    head=dict(type="ConvHead"),
)
train_data = dict(dataset=dict(type="FarStrips", split="train", transforms="tensor"), batch_size=4)
val_data = dict(dataset=dict(type="FarStrips", split="val", transforms="tensor"), batch_size=6)
optimizer = dict(type="AdamW", lr=1e-2)
training = dict(iterations=50, checkpoint_interval=0, log_interval=50)
evaluation = dict(pictures=0)
"""


def config(folder, *options, text=CONFIG):
    return load_config(discs.write_config(folder, text), options)


@pytest.mark.slow
@problems.FAR_DEPTH
def test_depth_of_2_to_60_m_within_50_steps(tmp_path):
    """It ends at 5.7 m. A constant has 17.7 m, and the same run without the option 30.7 m (measured once)."""
    record = train(config(tmp_path, "training.init_from_data=True"), tmp_path / "run")
    constant = record.constant["depth"]["rmse"]  # a row of every record by default
    assert record.scores["depth"]["rmse"] < 0.6 * constant
    first = json.loads((tmp_path / "run" / "losses.jsonl").read_text().splitlines()[0])
    assert 0.7 < first["loss/depth"] < 1.5
    (scale,) = record.training["loss_scales"].values()
    assert 10 < scale < 16  # metres: the mean distance to the median


@problems.FAR_DEPTH
def test_a_resumed_run_has_the_same_scale(tmp_path):
    options = ("training.init_from_data=True", "training.iterations=4", "training.checkpoint_interval=2")
    whole = tmp_path / "whole"
    train(config(tmp_path, *options), whole)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    for name in ("iter_4.pth", "record.json"):
        (cut / name).unlink()
    with pytest.raises(ResumeError, match="init_from_data.*another scale"):
        train(config(tmp_path, *options[1:]), cut, resume="auto")
    train(config(tmp_path, *options), cut, resume="auto")
    assert (cut / "losses.jsonl").read_text() == (whole / "losses.jsonl").read_text()
    states = [load_checkpoint(folder / "iter_4.pth")["state_dict"] for folder in (whole, cut)]
    assert states[0]["loss_scale"].item() > 10
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def start(task, *maps):
    return start_of(task, TaskLosses([task]).losses[task.name], [torch.as_tensor(item) for item in maps])


@problems.FAR_DEPTH
def test_constants_that_outputs_start_at():
    far = start(tasks.depth(), torch.tensor([[[2.0, 10.0, 60.0, torch.nan]]]))
    assert (far.logits, far.scale) == ((10.0,), pytest.approx((8 + 50) / 3))
    flow = start(tasks.values(channels=2), torch.tensor([[[-3.0, 1.0, 9.0]], [[500.0, 500.0, 800.0]]]))
    assert flow.logits == (1.0, 500.0)
    classes = start(tasks.semseg("abc"), torch.tensor([[0, 0, 0, 1, 255]]))
    shares = [0.75 * (1 - UNIFORM), 0.25 * (1 - UNIFORM), 0.0]
    assert np.exp(classes.logits) == pytest.approx([share + UNIFORM / 3 for share in shares])
    assert classes.scale == 1
    normals = start(tasks.normals(), torch.tensor([0.0, 0.6, 0.8])[:, None, None].expand(3, 2, 2))
    assert normals.logits == pytest.approx((0, 0.6, 0.8), abs=0.01)
    assert normals.scale == 1


def test_probabilities_start_where_their_own_loss_is_smallest():
    """The base rate is .05: its logit is -2.9, but with weights .95 and .05 the best constant is 0."""
    label = (torch.arange(400) % 20 == 0).float().reshape(1, 20, 20)
    weighted, plain = (start(tasks.edge(positive_weight=weight), label) for weight in (0.95, 0.5))
    assert weighted.logits == (0.0,)
    assert plain.logits[0] == pytest.approx(np.log(0.05 / 0.95), abs=0.13)
    saliency = start(tasks.saliency(family="survey"), label[0].long())
    assert saliency.logits == (0.0,)  # its loss balances the classes
    assert {weighted.scale, plain.scale, saliency.scale} == {1.0}


def test_tasks_without_a_constant_are_left_as_they_are():
    assert start(tasks.depth(), torch.full((1, 2, 2), torch.nan)) is None
    assert start(tasks.semseg("ab")) is None
    assert start(tasks.instance("ab"), torch.zeros(2, 2, dtype=torch.int64)) is None


class Undeclared(torch.nn.Module):
    """A head of one's own that declares nothing."""

    def forward(self, feature):
        return feature.mean(dim=1, keepdim=True)


def test_a_head_without_a_declared_layer_is_named_and_its_loss_is_scaled(tmp_path):
    loaded = config(tmp_path, "training.init_from_data=True")
    settings = Settings.of(loaded)
    module = training_module(loaded, settings, network_of(loaded, settings.protocol))
    module.network.heads["depth"] = Undeclared()
    labels = [{"depth": torch.tensor([[[2.0, 10.0, 60.0]]])}]
    starts, notes = starts_of(module, labels)
    assert apply_starts(module, starts) == ["depth"]
    assert notes == []
    assert module.loss_scales() == {"depth": pytest.approx((8 + 50) / 3)}
    assert starts_of(module, [])[1] == [
        "depth: no constant of its labels is known; it starts as the network was built"
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("protocol=nyud-invpt", "tasks=['depth']"), "protocol nyud-invpt is published"),
        (("training.load_from=weights.pth",), "training.load_from loads"),
        (("training.first_look=0",), "training.first_look reads, which is 0"),
    ],
)
def test_where_it_is_refused(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        check_config(config(tmp_path, "training.init_from_data=True", *options))


def test_a_module_without_room_for_scales_says_so(tmp_path):
    loaded = config(tmp_path)
    settings = Settings.of(loaded)
    module = training_module(loaded, settings, network_of(loaded, settings.protocol))
    assert module.loss_scales() == {}
    assert "loss_scale" not in module.state_dict()
    with pytest.raises(ValueError, match="scaled=True"):
        module.set_loss_scales({"depth": 2.0})
