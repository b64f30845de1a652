"""Random labelled images: to try a config on a machine without its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.instances import BASE
from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE, Task
from mtvision.data.dataset import DenseDataset
from mtvision.data.transforms import Transform
from mtvision.protocols import Protocol


@DATASETS.register_module()
class RandomImages(DenseDataset):
    """Noise with a label of every task of the protocol, some pixels without one; no file is read.

    Args:
        length: number of images.
        size: (H, W) before transforms.
        missing: share of pixels without a label.
        protocol: whose tasks the labels are of.
        split: decides the images, together with their index.
        transforms: see `DenseDataset`.
        seed: of the transforms' draws.
        tasks: restrict the protocol to these tasks.

    Raises:
        ValueError: no image, or a size that is not positive.
    """

    def __init__(
        self,
        *,
        length: int = 2,
        size: tuple[int, int] = (96, 128),
        missing: float = 0.05,
        protocol: Protocol | None = None,
        split: str = "train",
        transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] = "tensor",
        seed: int = 0,
        tasks: Sequence[str] | None = None,
    ) -> None:
        if min(length, *size) < 1:
            raise ValueError(f"RandomImages: length {length} and size {tuple(size)} must be positive.")
        super().__init__(
            ids=[f"random_{split}_{index}" for index in range(length)],
            protocol=protocol,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
            check_split=False,
        )
        self.size = (int(size[0]), int(size[1]))
        self.missing = missing

    def read(self, index: int) -> RawSample:
        """See `DenseDataset`."""
        first = sum(self.split.encode()) * 1000 + index
        draws = torch.Generator().manual_seed(first)
        image = torch.randint(256, (*self.size, 3), generator=draws, dtype=torch.uint8).numpy()
        labels = {
            name: random_label(task, 1, self.size, first, self.missing)[0]
            for name, task in self.tasks.items()
        }
        arrays = {
            name: (label.movedim(0, -1) if self.tasks[name].label == "values" else label).numpy()
            for name, label in labels.items()
        }
        meta = Meta(id=self.ids[index], size=self.size, original_size=self.size)
        return RawSample(image, arrays, self.tasks, meta)

    def parameters(self) -> Mapping[str, Any]:
        """See `DenseDataset`."""
        return {"random_images": list(self.size), "missing": self.missing}


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
            outlines = torch.stack([_outline(size, generator) for _ in range(count)])
            label = outlines.repeat(1, task.label_channels, 1, 1)  # annotators who agree
        else:
            label = 1 + 4 * label
    holes = torch.rand(count, *size, generator=generator) < missing
    if task.label == "values":
        return label.masked_fill(holes[:, None], torch.nan)
    return label.masked_fill(holes, IGNORE)


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
