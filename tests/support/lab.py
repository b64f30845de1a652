"""A laboratory's own module as a text, with every kind of entry a plugin may register, and its config."""

from __future__ import annotations

from pathlib import Path

MODULE = '''
"""A data set, a backbone, a decoder, a balancer, a metric, a task, its activation and its colours."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from mtvision.balance.balancer import Balancer
from mtvision.core.registry import (
    ACTIVATIONS, BACKBONES, BALANCERS, COLOURS, DATASETS, DECODERS, METRICS, TASKS
)
from mtvision.core.sample import Meta, RawSample
from mtvision.data.dataset import DenseDataset
from mtvision.metrics.depth import Depth
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.decoders.parallel import ParallelDecoder
from mtvision.protocols.tasks import depth

__version__ = "3.1"
mtvision_requires = ">=0.1"


@DATASETS.register_module()
class LabDiscs(DenseDataset):
    def __init__(self, *, length=6, **options):
        super().__init__(ids=[f"disc-{index}" for index in range(length)], **options)

    def read(self, index):
        rng = np.random.default_rng([index, len(self.split)])
        rows, columns = np.mgrid[:32, :32]
        disc = np.hypot(rows - rng.uniform(8, 24), columns - rng.uniform(8, 24)) < 6
        image = rng.integers(0, 80, (32, 32, 3)).astype(np.uint8)
        image[disc] += 150
        labels = {
            "semseg": disc.astype(np.uint8),
            "distance": np.where(disc, 2.0, 5.0)[..., None].astype(np.float32),
        }
        meta = Meta(id=self.ids[index], size=(32, 32), original_size=(32, 32))
        labels = {name: label for name, label in labels.items() if name in self.tasks}
        return RawSample(image=image, labels=labels, tasks=self.tasks, meta=meta)


@BACKBONES.register_module()
class LabNet(Backbone):
    exits = (1, 2, 3)

    def __init__(self, *, width=4):
        super().__init__()
        sizes = [3, width, 2 * width, 2 * width]
        for index, (before, after) in enumerate(zip(sizes, sizes[1:])):
            layers = nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU())
            self.add_module(f"stage{index}", layers)
        self.measure()

    def stem(self, image):
        return image

    def block_names(self):
        return ["stage0", "stage1", "stage2"]

    def to_map(self, state, level, size):
        return state


@DECODERS.register_module()
class LabDecoder(ParallelDecoder):
    pass


@BALANCERS.register_module()
class LabBalancer(Balancer):
    needs = "scalar"

    def combine(self, losses):
        return torch.stack(list(losses.values())).amax()


@METRICS.register_module("lab_distance")
@dataclass(frozen=True, kw_only=True)
class LabDistance(Depth):
    expensive = True  # measured in processes of their own


@ACTIVATIONS.register_module("lab_softplus")
def softplus(logits, zoom):
    return nn.functional.softplus(logits)


@COLOURS.register_module("lab_shades")
def shades(task, array, limits):
    plane = np.asarray(array).reshape(np.asarray(array).shape[-2:])
    shade = np.clip(np.nan_to_num(plane) * 40, 0, 255).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=2)


@TASKS.register_module()
def distance():
    return replace(
        depth(),
        name="distance",
        metrics=({"type": "lab_distance"},),
        activation="lab_softplus",
        colours="lab_shades",
    )
'''

CONFIG = """
protocol = dict(
    id="lab-discs", tasks=dict(semseg=dict(class_names=["ground", "disc"]), distance=dict())
)
model = dict(
    backbone=dict(type="LabNet"), decoder=dict(type="LabDecoder", width=4), head=dict(type="ConvHead")
)
train_data = dict(dataset=dict(type="LabDiscs", split="train", transforms="tensor"), batch_size=3)
test_data = dict(dataset=dict(type="LabDiscs", split="test", transforms="tensor"), batch_size=3)
balancer = dict(type="LabBalancer")
optimizer = dict(type="AdamW", lr=1e-2)
training = dict(iterations=3)
evaluation = dict(pictures=1, workers=1)
"""


def write_lab(folder: Path) -> Path:
    """The module as one file of the folder; returns its path."""
    path = folder / "labparts.py"
    path.write_text(MODULE)
    return path


def write_package(folder: Path) -> Path:
    """The module as `mylab.multitask` of a package; returns the package's folder."""
    package = folder / "mylab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "multitask.py").write_text(MODULE)
    return package


def announce(folder: Path, module: str, version: str = "0.9", name: str = "my-lab") -> None:
    """What an installed package leaves in a folder of `sys.path`: its version and its entry point."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[mtvision.plugins]\nlab = {module}\n")
