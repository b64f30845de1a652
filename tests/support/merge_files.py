"""A config, checkpoints of a base and its children, and `mtvision merge` on them."""

from __future__ import annotations

import torch

from mtvision.cli.main import command_line
from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol
from mtvision.runtime.checkpoint import load_checkpoint, save_checkpoint

CONFIG = """
protocol = "synthetic-scenes"
tasks = ["semseg", "depth"]
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet10t", channels=(8, 16, 24, 32), stem_width=8),
    decoder=dict(type="ParallelDecoder", width=8),
    head=dict(type="ConvHead"),
)
train_data = dict(
    dataset=dict(type="SyntheticScenes", split="train", length=4, size=(32, 48), transforms="tensor"),
    batch_size=2,
    num_workers=0,
)
"""
MODEL = {
    "backbone": {"type": "TimmBackbone", "name": "resnet10t", "channels": (8, 16, 24, 32), "stem_width": 8},
    "decoder": {"type": "ParallelDecoder", "width": 8},
    "head": {"type": "ConvHead"},
}
TASKS = ("semseg", "depth")


def network_of(*tasks, seed=0):
    torch.manual_seed(seed)
    return build_network(MODEL, get_protocol("synthetic-scenes").select(tasks).tasks)


def write(path, state, tasks, **meta):
    plain = {f"network.{name}": item for name, item in state.items()}
    save_checkpoint(path, {"meta": {"tasks": list(tasks), "iter": 7, **meta}, "state_dict": plain})


def moved(state, seed, size=0.01):
    stream = torch.Generator().manual_seed(seed)
    return {
        name: item + size * torch.rand(item.shape, generator=stream) if item.is_floating_point() else item
        for name, item in state.items()
    }


def run(out, *options, base="base.pth", semseg="semseg.pth", depth="depth.pth"):
    parents = [f"semseg={semseg}", f"depth={depth}"]
    arguments = ["merge", "config.py", "--base", str(base), "--parents", *parents, "--out", str(out)]
    return command_line([*arguments, *options])


def state_of(path):
    return {name.removeprefix("network."): x for name, x in load_checkpoint(path)["state_dict"].items()}
