"""Small tasks, labels, images and networks that batteries run on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.instances import BASE, OFFSET_UNIT
from mtvision.core.sample import Batch, Meta, Sample, collate
from mtvision.core.task import Task
from mtvision.data.random_images import random_label
from mtvision.losses.instance import instance_targets
from mtvision.models.backbones.backbone import Backbone
from mtvision.protocols.tasks import depth, normals, semseg

SURE = 20.0
"""Logit of a class that a perfect prediction is certain of."""


def toy_tasks() -> tuple[Task, ...]:
    """A class map, a real value and a direction: three kinds of label."""
    return (semseg(("sky", "road", "car")), depth(), normals())


class ToyBackbone(Backbone):
    """Strided convolutions with fixed random weights: a pyramid for a decoder or an adapter on its own.

    Args:
        channels: of each level, fine to coarse.
        strides: of each level; each divides the next.
    """

    def __init__(
        self, channels: Sequence[int] = (8, 12, 16, 24), strides: Sequence[int] = (4, 8, 16, 32)
    ) -> None:
        super().__init__()
        before = (strides[0], *strides)
        widths = (channels[0], *channels)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, channels[0], 3, stride=strides[0], padding=1)
            self.levels_ = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(widths[i], widths[i + 1], 3, stride=before[i + 1] // before[i], padding=1),
                    nn.GELU(),
                )
                for i in range(len(channels))
            )
            for module in self.modules():
                if isinstance(module, nn.Conv2d):  # maps of unit size, so that features depend on the image
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.exits = tuple(range(1, len(channels) + 1))
        self.measure()

    def stem(self, image: Tensor) -> Tensor:
        """State at the stride of the first level."""
        state: Tensor = self.patches(image)
        return state

    def block_names(self) -> list[str]:
        """One block per level."""
        return [f"levels_.{index}" for index in range(len(self.levels_))]

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """The state itself."""
        return state


def random_image(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Image batch (count, 3, H, W) of normal values."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def perfect_logits(task: Task, label: Tensor) -> Tensor:
    """Logits (B, out_channels, H, W) that give a batch of labels without holes."""
    if task.label == "instances":
        return torch.stack([_instance_logits(task, item) for item in label])
    if task.activation == "argmax":
        return (2 * F.one_hot(label, task.out_channels).movedim(-1, 1).float() - 1) * SURE
    if task.activation == "foreground":
        return (2 * F.one_hot(label, 2).movedim(-1, 1).float() - 1) * SURE
    if task.activation == "sigmoid":
        positive = label[:, None] if task.label == "classes" else label
        return (2 * positive.float() - 1) * SURE
    return label.clone()


def toy_batch(
    tasks: Sequence[Task],
    count: int,
    size: tuple[int, int] = (16, 24),
    seed: int = 0,
    lacking: Sequence[Sequence[str]] = (),
) -> Batch:
    """A batch with full labels of all tasks.

    Args:
        tasks: whose labels are drawn.
        count: of samples.
        size: (H, W).
        seed: of the draw.
        lacking: names of the tasks that sample 0, 1, ... has no label of.
    """
    return collate(toy_samples(tasks, count, size, seed, lacking))


def toy_samples(
    tasks: Sequence[Task],
    count: int,
    size: tuple[int, int] = (16, 24),
    seed: int = 0,
    lacking: Sequence[Sequence[str]] = (),
) -> list[Sample]:
    """The samples of `toy_batch`."""
    images = random_image(count, size, seed)
    labels = {task.name: random_label(task, count, size, seed) for task in tasks}
    without = [*lacking, *[()] * count][:count]
    return [
        Sample(
            images[index],
            {name: item[index] for name, item in labels.items() if name not in without[index]},
            Meta(id=f"toy-{index}", size=size, original_size=size),
        )
        for index in range(count)
    ]


def _instance_logits(task: Task, label: Tensor) -> Tensor:
    heat, offset = instance_targets(label, (2.0, 8.0))
    classes = torch.div(label, BASE, rounding_mode="floor")
    scores = (2 * F.one_hot(classes, task.num_classes + 1).movedim(-1, 0).float() - 1) * SURE
    return torch.cat([scores, heat[None], offset / OFFSET_UNIT])
