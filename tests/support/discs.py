"""A tiny data set and config for tests of the engine: discs of random place, size and distance."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from torch import nn

from mtvision.core.registry import BACKBONES, DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.data.dataset import DenseDataset
from mtvision.models.backbones.backbone import Backbone
from mtvision.protocols import own_protocol

PROTOCOL = own_protocol("discs", {"semseg": {"class_names": ["ground", "disc"]}, "depth": {}})


@DATASETS.register_module()
class TinyDiscs(DenseDataset):
    """Images 32x32; `broken` names the index whose depth label holds infinity."""

    def __init__(self, *, length=12, broken=None, without_depth=(), **options):
        super().__init__(ids=[f"disc-{index}" for index in range(length)], **options)
        self.broken = broken
        self.without_depth = without_depth

    def read(self, index):
        rng = np.random.default_rng([index, len(self.split)])
        rows, columns = np.mgrid[:32, :32]
        disc = np.hypot(rows - rng.uniform(8, 24), columns - rng.uniform(8, 24)) < rng.uniform(5, 9)
        image = rng.integers(0, 80, (32, 32, 3)).astype(np.uint8)
        image[disc] += 150
        distance = np.where(disc, rng.uniform(1, 3), 5.0)[..., None].astype(np.float32)
        if index == self.broken:
            distance[0, 0] = np.inf
        labels = {"semseg": disc.astype(np.uint8), "depth": distance}
        kept = {name: label for name, label in labels.items() if name in self.tasks}
        if index in self.without_depth:
            kept.pop("depth", None)
        meta = Meta(id=self.ids[index], size=(32, 32), original_size=(32, 32))
        return RawSample(image=image, labels=kept, tasks=self.tasks, meta=meta)


@BACKBONES.register_module()
class DropoutNet(Backbone):
    """Three strided convolutions with dropout and a norm, so that random states and buffers matter."""

    exits = (1, 2, 3)

    def __init__(self, *, width=8, norm="batch"):
        super().__init__()
        sizes = [3, width, 2 * width, 2 * width]
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            normalise = nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(2, after)
            layers = [nn.Conv2d(before, after, 3, stride=2, padding=1), normalise, nn.ReLU(), nn.Dropout(0.1)]
            self.add_module(f"stage{index}", nn.Sequential(*layers))
        self.measure()

    def stem(self, image):
        return image

    def block_names(self):
        return ["stage0", "stage1", "stage2"]

    def to_map(self, state, level, size):
        return state


CONFIG = """
protocol = dict(
    id="discs",
    title="Discs",
    tasks=dict(semseg=dict(class_names=["ground", "disc"]), depth=dict()),
    loss_weights=dict(semseg=1.0, depth=0.5),
)
model = dict(
    backbone=dict(type="DropoutNet"),
    decoder=dict(type="ParallelDecoder", width=8),
    head=dict(type="ConvHead"),
)
train_data = dict(dataset=dict(type="TinyDiscs", split="train", transforms="tensor"), batch_size=4)
val_data = dict(dataset=dict(type="TinyDiscs", split="val", length=7, transforms="tensor"), batch_size=3)
optimizer = dict(type="AdamW", lr=1e-2)
training = dict(iterations=12, checkpoint_interval=5, val_interval=6, log_interval=4)
evaluation = dict(pictures=1, constant_predictor=0)
"""


def write_config(folder: Path, text: str = CONFIG) -> Path:
    """Write `CONFIG` to a file and return its path."""
    path = folder / "discs_config.py"
    path.write_text(text)
    return path
