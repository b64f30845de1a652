"""Data containers from disk to network: raw arrays, samples, batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtvision.core.task import IGNORE, Task

IMAGE_MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of RGB in 0..1, used for every backbone (the field's convention)."""
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Index of an image and pass over the data; it determines every random draw of the augmentation."""

    epoch: int
    index: int


@dataclass
class Meta:
    """Origin of a sample and changes of its frame.

    Args:
        id: name of the image within its data set, unique there.
        size: (H, W) of the image content, without padding, in the sample's own resolution.
        padding: rows or columns added (top, left, bottom, right) around the content.
        original_size: (H, W) of the file, before any transform.
        extra: further facts (camera, source path), plain data. `objects_without_pixel` counts objects that
            the annotations list and no label shows.
    """

    id: str
    size: tuple[int, int]
    original_size: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class RawSample:
    """Decoded arrays with units, before and between transforms.

    Args:
        image: RGB (H, W, 3), uint8 or float32 in 0..255; float32 without range after normalisation.
        labels: `classes` and `instances` tasks: integer (H, W), 255 = none. `values` tasks: float32
            (H, W, C), NaN = none. A task without a label for this image is an absent key.
        tasks: the task values of all keys that may occur in `labels`.
        meta: origin and frame.

    >>> from mtvision.protocols.tasks import depth
    >>> image, distance = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6, 1), np.float32)
    >>> raw = RawSample(image, {"depth": distance}, {"depth": depth()}, Meta("a", (4, 6), (4, 6)))
    >>> int(raw.with_(image=image + 1).image.max())
    1
    """

    image: NDArray[Any]
    labels: dict[str, NDArray[Any]]
    tasks: Mapping[str, Task]
    meta: Meta

    def with_(self, **changes: Any) -> RawSample:
        """Copy with some fields replaced."""
        return replace(self, **changes)


@dataclass
class Sample:
    """One training or test example.

    Args:
        image: float32 (3, H, W), RGB, normalised with `IMAGE_MEAN` and `IMAGE_STD`.
        labels: `classes`, `instances`: int64 (H, W), 255 = none. `values`: float32 (C, H, W), NaN = none.
            Labels may have another resolution than the image (Cityscapes); they agree among themselves.
        meta: origin and frame.

    >>> from mtvision.protocols.tasks import depth
    >>> image, distance = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6, 1), np.float32)
    >>> raw = RawSample(image, {"depth": distance}, {"depth": depth()}, Meta("a", (4, 6), (4, 6)))
    >>> sample = Sample.from_raw(raw)
    >>> sample.image.shape, sample.labels["depth"].shape
    (torch.Size([3, 4, 6]), torch.Size([1, 4, 6]))
    """

    image: Tensor
    labels: dict[str, Tensor]
    meta: Meta

    @classmethod
    def from_raw(cls, raw: RawSample) -> Sample:
        """Convert arrays (H, W, C) to tensors (C, H, W) of the contract's dtypes; they share no memory.

        Always copies: arrays may be memory-mapped or read-only, and transforms may have cached them.
        """
        labels = {}
        for name, array in raw.labels.items():
            if raw.tasks[name].label != "values":
                labels[name] = torch.from_numpy(np.array(array, dtype=np.int64, order="C"))
            else:
                planes = np.array(array.transpose(2, 0, 1), dtype=np.float32, order="C")
                labels[name] = torch.from_numpy(planes)
        image = torch.from_numpy(np.array(raw.image.transpose(2, 0, 1), dtype=np.float32, order="C"))
        return cls(image=image, labels=labels, meta=raw.meta)


@dataclass
class Batch:
    """Samples stacked along a first axis.

    Args:
        image: float32 (B, 3, H, W).
        labels: {task: (B, ...)}; only tasks that at least one sample has. Samples without the task are
            filled with "no label", so that losses skip them.
        present: {task: bool (B,)}, which samples have the task.
        meta: one entry per sample.

    >>> metas = [Meta("a", (4, 4), (4, 4)), Meta("b", (4, 4), (4, 4))]
    >>> labels = {"semseg": torch.full((2, 4, 4), IGNORE)}
    >>> batch = Batch(torch.zeros(2, 3, 4, 4), labels, {"semseg": torch.tensor([True, False])}, metas)
    >>> len(batch), batch.ids, batch.label_size
    (2, ['a', 'b'], (4, 4))
    """

    image: Tensor
    labels: dict[str, Tensor]
    present: dict[str, Tensor]
    meta: list[Meta]

    def __len__(self) -> int:
        return len(self.meta)

    @property
    def ids(self) -> list[str]:
        """Image ids, in order."""
        return [item.id for item in self.meta]

    @property
    def label_size(self) -> tuple[int, int]:
        """(H, W) of the labels; of the image when there are none."""
        tensors = list(self.labels.values()) or [self.image]
        return (int(tensors[0].shape[-2]), int(tensors[0].shape[-1]))

    def completed(self, tasks: Sequence[Task]) -> Batch:
        """Copy with labels of exactly `tasks`; those that no sample has are filled with "no label".

        >>> batch = Batch(torch.zeros(2, 3, 4, 4), {}, {}, [])
        >>> from mtvision.protocols.tasks import depth
        >>> batch.completed([depth()]).labels["depth"].isnan().all()
        tensor(True)
        """
        size, device = self.label_size, self.image.device
        nobody = torch.zeros(len(self.image), dtype=torch.bool, device=device)
        labels, present = {}, {}
        for task in tasks:
            known = task.name in self.labels
            labels[task.name] = (
                self.labels[task.name] if known else _no_label(task, len(self.image), size).to(device)
            )
            present[task.name] = self.present[task.name] if known else nobody
        return Batch(image=self.image, labels=labels, present=present, meta=self.meta)

    def part(self, indices: Sequence[int]) -> Batch:
        """The samples at `indices`, in that order; tasks that none of them has are left out.

        >>> from mtvision.core.sample import Meta
        >>> metas = [Meta(id=name, size=(4, 4), original_size=(4, 4)) for name in "abc"]
        >>> Batch(torch.zeros(3, 3, 4, 4), {}, {}, metas).part([2, 0]).ids
        ['c', 'a']
        """
        index = torch.tensor(list(indices), dtype=torch.int64)
        present = {name: flags[index.to(flags.device)] for name, flags in self.present.items()}
        kept = [name for name in self.labels if bool(present[name].any())]
        place = index.to(self.image.device)
        return Batch(
            image=self.image[place],
            labels={name: self.labels[name][place] for name in kept},
            present={name: present[name] for name in kept},
            meta=[self.meta[item] for item in indices],
        )

    def to(self, device: torch.device | str) -> Batch:
        """Copy with all tensors on `device`."""
        return Batch(
            image=self.image.to(device, non_blocking=True),
            labels={name: label.to(device, non_blocking=True) for name, label in self.labels.items()},
            present={name: flags.to(device, non_blocking=True) for name, flags in self.present.items()},
            meta=self.meta,
        )

    def pin_memory(self) -> Batch:
        """Copy in page-locked memory (the hook that `DataLoader(pin_memory=True)` calls)."""
        return Batch(
            image=self.image.pin_memory(),
            labels={name: label.pin_memory() for name, label in self.labels.items()},
            present={name: flags.pin_memory() for name, flags in self.present.items()},
            meta=self.meta,
        )


def _no_label(task: Task, count: int, size: tuple[int, int]) -> Tensor:
    if task.label == "values":
        return torch.full((count, task.label_channels, *size), torch.nan)
    return torch.full((count, *size), IGNORE, dtype=torch.int64)


def _no_label_like(label: Tensor) -> Tensor:
    return torch.full_like(label, torch.nan if label.is_floating_point() else IGNORE)


def collate(samples: Sequence[Sample], *, stack: Callable[[list[Tensor]], Tensor] = torch.stack) -> Batch:
    """Stack samples. A task that some samples do not have is filled with "no label".

    Args:
        samples: one at least.
        stack: `torch.stack`, or the same into other memory. It is called with the images, then with the
            labels of one task after another, in the order of the result.

    Raises:
        ValueError: images, or labels of one task, differ in shape; the message names the two samples.
    """
    images = _stack("image", [sample.image for sample in samples], samples, stack)
    names = sorted({name for sample in samples for name in sample.labels})
    labels, present = {}, {}
    for name in names:
        example = next(sample.labels[name] for sample in samples if name in sample.labels)
        maps = [sample.labels.get(name, _no_label_like(example)) for sample in samples]
        labels[name] = _stack(name, maps, samples, stack)
        present[name] = torch.tensor([name in sample.labels for sample in samples])
    return Batch(image=images, labels=labels, present=present, meta=[sample.meta for sample in samples])


def _stack(
    what: str,
    tensors: list[Tensor],
    samples: Sequence[Sample],
    stack: Callable[[list[Tensor]], Tensor],
) -> Tensor:
    for tensor, sample in zip(tensors, samples, strict=True):
        if tensor.shape != tensors[0].shape:
            raise ValueError(
                f"{what}: sample '{sample.meta.id}' has shape {tuple(tensor.shape)} but "
                f"'{samples[0].meta.id}' has {tuple(tensors[0].shape)}. "
                "Crop, pad or resize to one size, or use a batch size of 1."
            )
    return stack(tensors)
