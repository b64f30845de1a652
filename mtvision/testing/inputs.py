"""Small tasks, labels, images and networks that batteries run on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.instances import BASE, OFFSET_UNIT
from mtvision.core.sample import Batch, Meta, Sample, collate
from mtvision.core.task import IGNORE, Task
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


def random_label(
    task: Task, count: int, size: tuple[int, int], seed: int = 0, missing: float = 0.0
) -> Tensor:
    """Batched labels of a task in the form of the contract.

    Args:
        task: says which kind.
        count: of samples.
        size: (H, W).
        seed: of the draw.
        missing: share of pixels without label.
    """
    generator = torch.Generator().manual_seed(seed)
    if task.label == "classes":
        label = torch.randint(task.num_classes, (count, *size), generator=generator)
    elif task.label == "instances":
        label = torch.stack([_instances(task, size, generator) for _ in range(count)])
    else:
        label = torch.rand(count, task.label_channels, *size, generator=generator)
        if task.geometry == "direction":
            label = F.normalize(label - 0.5, dim=1)
        elif task.activation == "sigmoid":
            label = torch.stack([_outline(size, generator) for _ in range(count)])
        else:
            label = 1 + 4 * label
    holes = torch.rand(count, *size, generator=generator) < missing
    if task.label == "values":
        return label.masked_fill(holes[:, None], torch.nan)
    return label.masked_fill(holes, IGNORE)


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


def _instances(task: Task, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Three rectangles in three bands of rows, so that none hides another."""
    label = torch.zeros(size, dtype=torch.int64)
    height, width = size[0] // 3, size[1] // 2
    for number in range(3):
        category = int(torch.randint(task.num_classes, (), generator=generator))
        left = int(torch.randint(size[1] - width + 1, (), generator=generator))
        top = number * height
        label[top : top + max(height - 1, 1), left : left + width] = BASE * (category + 1) + number
    return label


def _outline(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """The outline of a rectangle, one pixel wide, (1, H, W)."""
    label = torch.zeros(1, *size)
    top, left = (int(torch.randint(1, max(side // 3, 2), (), generator=generator)) for side in size)
    bottom, right = size[0] - top - 1, size[1] - left - 1
    label[0, top : bottom + 1, [left, right]] = 1
    label[0, [top, bottom], left : right + 1] = 1
    return label


def _instance_logits(task: Task, label: Tensor) -> Tensor:
    heat, offset = instance_targets(label, (2.0, 8.0))
    classes = torch.div(label, BASE, rounding_mode="floor")
    scores = (2 * F.one_hot(classes, task.num_classes + 1).movedim(-1, 0).float() - 1) * SURE
    return torch.cat([scores, heat[None], offset / OFFSET_UNIT])
