"""The plan of training: counts against closed forms, and time, memory and growth against arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from mtvision.cli.machine import plan_command
from mtvision.cli.machine.plan_command import growth, rough
from mtvision.cli.machine.step_plan import Counted, Rate, count_step, line, measure_rate, plan, slope
from mtvision.cli.main import call
from mtvision.core.shapes import without_values
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, normals, saliency, semseg

TASKS = (semseg(("a", "b")), depth(), normals(), saliency())
RESNET = {"type": "TimmBackbone", "name": "resnet10t", "channels": (8, 8, 16, 16), "stem_width": 8}
MODEL = {
    "backbone": RESNET,
    "decoder": {"type": "ParallelDecoder", "width": 8},
    "head": {"type": "ConvHead"},
}
COUNTED = Counted(macs=10**9, activations=1000, parameters=300, trainable=200, buffers=8)
RATE = Rate(macs_per_second=1e9, overhead=0.5, device="here")


class Two(nn.Module):
    """Two convolutions without bias: 3 -> 4 -> 2 channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)

    def forward(self, image):
        return self.second(self.first(image))


def test_a_step_is_counted_forward_and_backward():
    with without_values():
        network = Two().eval()
    found = count_step(network, (10, 20), batch=2)
    pixels = 2 * 10 * 20
    # forward, gradients of the weights, and gradients of the second layer's input
    assert found.macs == pixels * (2 * 3 * 4 + 3 * 4 * 2)
    assert found.activations == 4 * pixels * (3 + 4 + 2)  # both inputs, and the output that is squared
    assert (found.parameters, found.trainable, found.buffers) == (20, 20, 0)
    assert not network.training


def test_deep_supervision_is_part_of_both_passes():
    counts = []
    for options in ({}, {"deep_supervision": 0.5}):
        decoder = {"type": "ParallelDecoder", "width": 8, **options}
        with without_values():
            counts.append(count_step(build_network({**MODEL, "decoder": decoder}, TASKS), (64, 64)).macs)
    pixels = 8 * 8 + 4 * 4 + 2 * 2  # of the levels with further logits, from 8 channels
    assert counts[1] - counts[0] == 3 * pixels * 8 * sum(task.out_channels for task in TASKS)


def test_what_is_frozen_has_no_gradient():
    with without_values():
        network = Two()
    network.first.requires_grad_(False)
    found = count_step(network, (4, 4))
    assert found.trainable == 8
    assert found.macs == 16 * (3 * 4 + 2 * 4 * 2)


def test_time_is_a_line_through_two_points():
    rate = line([(100, 3.0), (200, 5.0)], "x")
    assert (rate.macs_per_second, rate.overhead) == (50, 1.0)
    assert line([(100, 3.0), (200, 3.0)]).overhead == 0.0
    assert line([(100, 3.0), (200, 3.0)]).macs_per_second == pytest.approx(200 / 3)
    measured = measure_rate(Two(), lambda size: size[0] * size[1], (8, 8))
    assert measured.macs_per_second > 0
    assert [count for count, _ in measured.points] == [16, 64]


def test_memory_and_time_by_hand():
    one = plan(COUNTED, RATE, gpus=1, batch=2, iterations=3600)
    assert one["memory"] == {
        "weights": 1208, "gradients": 800, "optimizer": 1600, "activations": 1000, "buckets": 0,
        "total": 4608,
    }  # fmt: skip
    assert one["seconds"] == {"compute": 1.5, "communication": 0, "step": 1.5}
    assert one["hours"] == pytest.approx(1.5)
    four = plan(COUNTED, RATE, gpus=4, batch=2, iterations=1, optimizer="SGD", bandwidth=1e-6)
    assert four["memory"]["optimizer"] == four["memory"]["buckets"] == 800
    assert four["seconds"]["communication"] == pytest.approx(1.5 * 800 / 1e3)
    assert four["images_per_second"] == pytest.approx(8 / four["seconds"]["step"])
    with pytest.raises(ValueError, match="gpus 0"):
        plan(COUNTED, RATE, gpus=0, batch=1, iterations=1)


def test_slopes():
    assert slope([(1, 5), (2, 5), (4, 5)]) == pytest.approx(0)
    assert slope([(1, 2), (3, 54)]) == pytest.approx(3)
    for wrong in ([(1, 1)], [(1, 0), (2, 1)], [(2, 1), (2, 3)]):
        with pytest.raises(ValueError, match="slope"):
            slope(wrong)


@pytest.mark.slow
def test_a_convolutional_network_grows_linearly_with_pixels():
    found = growth(MODEL, TASKS, (128, 128))
    assert [point["at"] for point in found["tasks"]["points"]] == [1, 2, 3, 4]
    assert len(found["pixels"]["points"]) >= 4
    assert len(found["levels"]["points"]) >= 4
    assert found["pixels"]["macs"] == pytest.approx(1, abs=0.02)
    assert found["pixels"]["memory"] == pytest.approx(1, abs=0.05)
    first, *_, last = (point["macs"] for point in found["tasks"]["points"])
    assert first < last < 4 * first


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (64, 96), (128, 128)], ids=str)
def test_small_images_are_counted_at_four_sizes_too(size, monkeypatch):
    counted = []

    def count(network, sides, batch=1):
        counted.append(sides)
        return replace(COUNTED, macs=sides[0] * sides[1])

    monkeypatch.setattr(plan_command, "count_step", count)
    few = {**MODEL, "backbone": {"type": "Absent"}}
    monkeypatch.setattr(plan_command, "_counted_network", lambda model, tasks: few)
    found = growth(few, TASKS[:2], size)
    sides = counted[: len(found["pixels"]["points"])]
    assert len(set(sides)) == len(sides) >= 4
    assert min(min(side) for side in sides) >= 64
    assert found["pixels"]["macs"] == pytest.approx(1)
    assert rough(found) == "An exponent of fewer than 4 points is rough: tasks (2)."


def test_the_command_says_which_exponents_are_rough(monkeypatch, capsys):
    monkeypatch.setattr(plan_command, "count_step", lambda network, sides, batch=1: COUNTED)
    monkeypatch.setattr(plan_command, "_counted_network", lambda model, tasks: model)
    config = "configs/parallel/parallel_tiny_synthetic_1xb8_300.py"
    options = ["--growth", "--shape", "64", "64", "--cfg-options", "tasks=['depth', 'semseg']"]
    assert call("cost", [config, *options]) == 0
    assert "fewer than 4 points is rough: tasks (2)" in " ".join(capsys.readouterr().out.split())


def test_the_command_prints_a_plan_and_growth(capsys):
    config = "configs/parallel/parallel_tiny_synthetic_1xb8_300.py"
    options = ["--shape", "64", "64", "--json"]
    assert call("cost", [config, "--plan", "--gpus", "2", "--rate", "1e9", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpus"], found["batch"], found["iterations"]) == (2, 8, 300)
    assert found["seconds"]["compute"] == pytest.approx(found["macs_per_step"] / 1e9)
    assert call("cost", [config, "--plan", "--rate", "1e9", *options[:3]]) == 0
    assert "images per second" in capsys.readouterr().out
    freeze = ["--cfg-options", "training.freeze=['backbone.*']"]
    assert call("cost", [config, "--plan", "--gpus", "2", "--rate", "1e9", *options, *freeze]) == 0
    still = json.loads(capsys.readouterr().out)
    assert still["memory"]["weights"] == found["memory"]["weights"]
    for name in ("gradients", "optimizer", "activations", "buckets"):
        assert still["memory"][name] < found["memory"][name]
    with pytest.raises(SystemExit):
        call("cost", [config, "--plan", "--growth", *options])
    assert "give one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "words", "absent"),
    [
        ("m3vit/m3vit_tiny_synthetic_1xb8_300", "read by one token", "trained"),
        ("low_rank/houlsby_tiny_synthetic_1xb8_300", "trained", "read by"),
    ],
)
def test_parameters_that_not_all_count_are_printed(config, words, absent, capsys):
    assert call("cost", [f"configs/{config}.py", "--shape", "64", "64", "--meta"]) == 0
    text = capsys.readouterr().out
    assert words in text
    assert absent not in text


def test_the_prediction_counts_what_a_real_step_keeps():
    """Bytes that are counted without values are those that a real forward pass keeps."""
    kept = {}
    network = Two()
    own = {item.untyped_storage().data_ptr() for item in network.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    image = torch.zeros(1, 3, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda item: item):
        network(image).float().square().mean().backward()
    with without_values():
        counted = count_step(Two(), (8, 8))
    assert counted.activations == sum(storage.nbytes() for storage in kept.values())
