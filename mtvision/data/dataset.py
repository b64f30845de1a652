"""The base of all data sets: read, validate, transform, convert."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mtvision.core.files.pictures import orientation_in
from mtvision.core.instances import BASE
from mtvision.core.naming import look_up
from mtvision.core.random import generator
from mtvision.core.registry.workers import reduced_after_plugins
from mtvision.core.sample import RawSample, Sample, SampleKey
from mtvision.core.task import IGNORE, Task
from mtvision.data.maps.encoding import Encoding
from mtvision.data.samplers import PositionBatchSampler, TrainingBatchSampler
from mtvision.data.transforms import Pipeline, Transform, build_pipeline
from mtvision.protocols import Protocol


def check_count(
    name: str, split: str, found: Sequence[str], expected: int, announced: Sequence[str] = ()
) -> None:
    """Refuse a split of the wrong size.

    Args:
        name: of the data set or protocol, for the message.
        split: of the data set.
        found: ids that are there.
        expected: the protocol's number.
        announced: ids that should be there, if known, to name the first one missing.

    Raises:
        ValueError: `len(found)` is not `expected`.
    """
    if len(found) == expected:
        return
    there = set(found)
    missing = next((item for item in announced if item not in there), None)
    hint = f"; first missing: '{missing}'" if missing is not None else ""
    raise ValueError(
        f"{name}, split '{split}': found {len(found)} images, the protocol has {expected}{hint}. "
        "Complete the data set (or use a protocol of your own, `own_protocol`, for a part of it)."
    )


class DenseDataset(Dataset[Sample], ABC):
    """Images with dense labels. A subclass lists ids and reads one raw sample; everything else is here.

    A sample is a function of (seed, epoch, index): `dataset[SampleKey(epoch, index)]`; a plain integer means
    epoch 0.

    Args:
        ids: names of the images, unique, in the split's order.
        protocol: tasks and sizes; None = the class's `default_protocol`.
        split: name of the split; a data set that has only one need not name it.
        transforms: name of a preset (`mtvision.data.transforms.PRESETS`), `{"preset": name, **options}`, or
            a sequence of transforms, each an instance or a config `{"type": name, **options}`.
        seed: decides every random draw of the transforms together with epoch and index.
        tasks: restrict the protocol to these tasks.
        announced: ids that the split file announces, for the message about a wrong number of images.
        check_split: compare the number of images with the protocol's.

    Attributes:
        labels_match_image: whether labels have the image's size; False where a protocol says otherwise
            (Cityscapes), then labels only agree among themselves.

    Raises:
        ValueError: no protocol, a duplicate id, or not as many images as the protocol has.
        UnknownNameError: an unknown task, preset or transform.

    >>> from mtvision.core.sample import Meta
    >>> from mtvision.protocols import get_protocol
    >>> class Blank(DenseDataset):
    ...     def read(self, index):
    ...         labels = {"depth": np.ones((8, 8, 1), np.float32)}
    ...         meta = Meta(self.ids[index], (8, 8), (8, 8))
    ...         return RawSample(np.zeros((8, 8, 3), np.uint8), labels, self.tasks, meta)
    >>> dataset = Blank(ids=["a", "b"], protocol=get_protocol("nyud-invpt"), tasks=["depth"])
    >>> len(dataset), dataset[0].labels["depth"].shape
    (2, torch.Size([1, 8, 8]))
    """

    default_protocol: ClassVar[Protocol | None] = None
    labels_match_image: bool = True

    def __init__(
        self,
        *,
        ids: Sequence[str],
        protocol: Protocol | None,
        split: str = "all",
        transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] = "tensor",
        seed: int = 0,
        tasks: Sequence[str] | None = None,
        announced: Sequence[str] = (),
        check_split: bool = True,
    ) -> None:
        self.protocol = self.choose_protocol(protocol, tasks)
        self.split = split
        self.seed = seed
        self.ids = list(ids)
        if len(set(self.ids)) != len(self.ids):
            twice = next(item for item in self.ids if self.ids.count(item) > 1)
            raise ValueError(
                f"{type(self).__name__}: the image id '{twice}' occurs twice; ids must be unique."
            )
        expected = self.protocol.splits.get(split)
        if check_split and expected is not None:
            check_count(self.protocol.title, split, self.ids, expected, announced)
        self.tasks: dict[str, Task] = {task.name: task for task in self.protocol.tasks}
        self.pipeline: Pipeline = build_pipeline(transforms, self.protocol)

    @classmethod
    def choose_protocol(cls, protocol: Protocol | None, tasks: Sequence[str] | None) -> Protocol:
        """`protocol`, or the class's own, restricted to `tasks`.

        Subclasses call this when they need the tasks before the base constructor runs.

        Raises:
            ValueError: there is no protocol.
            UnknownNameError: a task is not in it.
        """
        chosen = protocol if protocol is not None else cls.default_protocol
        if chosen is None:
            raise ValueError(
                f"{cls.__name__}: a protocol is needed; take one of mtvision.protocols.get_protocol(id) or "
                "make one for your data with mtvision.protocols.own_protocol(id, tasks)."
            )
        return chosen if tasks is None else chosen.select(tasks)

    @abstractmethod
    def read(self, index: int) -> RawSample:
        """Decode one image and its labels, in the units of the contract, untransformed."""

    def source(self, index: int, task: str | None = None) -> str:
        """File of the image (`task=None`) or of one label, for messages. Subclasses override this."""
        return f"{task or 'image'} of '{self.ids[index]}'"

    def files(self) -> dict[str, Path]:
        """{name within the data set: path} of every file that this split reads; see `data_manifest`."""
        return {}

    def files_of(self, task: str | None) -> dict[str, Path]:
        """Files of the images (`task=None`) or of one task's labels; all of them where a set cannot tell."""
        return self.files()

    def remarks(self) -> Sequence[str]:
        """What was left out or looked odd when the data set was made, for `check_dataset`."""
        return ()

    def usual_classes(self) -> Mapping[str, Mapping[int, float]]:
        """{task: {class id: least share of the labelled pixels in any eight images}}; by default unknown."""
        return {}

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content of the samples besides the files."""
        return {}

    def encodings(self) -> Mapping[str, Encoding]:
        """{task: what the numbers in its files were found to mean}, where that was decided from the files."""
        return {}

    def batch_sampler(
        self, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> TrainingBatchSampler:
        """Training batches of `batch_size` images per rank; a data set may have an order of its own.

        Raises:
            ValueError: the data set is too small, or an argument is out of range.
        """
        return PositionBatchSampler(len(self), batch_size, seed=seed, rank=rank, world_size=world_size)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A process that is started with the data set loads plugins first."""
        return reduced_after_plugins(super().__reduce_ex__(protocol))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        key = key if isinstance(key, SampleKey) else SampleKey(epoch=0, index=int(key))
        if not 0 <= key.index < len(self):
            raise IndexError(f"{type(self).__name__}: index {key.index} of {len(self)} images.")
        return Sample.from_raw(self.transformed(key))

    def transformed(self, key: SampleKey) -> RawSample:
        """The validated sample after the transforms, still as arrays (for looking at it)."""
        raw = self.read(key.index)
        self.validate(key.index, raw)
        return self.pipeline(raw, generator(self.seed, key.epoch, key.index))

    def validate(self, index: int, raw: RawSample) -> None:
        """Check a raw sample against the contract.

        Raises:
            ValueError: wrong shape, size or type, or a class id out of range; names file and value.
            UnknownNameError: a label of a task that the protocol does not have.
        """
        if raw.image.ndim != 3 or raw.image.shape[2] != 3:
            raise ValueError(
                f"{self.source(index)}: the image has shape {raw.image.shape}, expected (H, W, 3)."
            )
        size = raw.image.shape[:2] if self.labels_match_image else None
        for name, label in raw.labels.items():
            task = look_up("label", name, self.tasks)
            where = self.source(index, name)
            if task.label == "classes":
                check_class_map(where, task, label)
            elif task.label == "instances":
                check_instance_map(where, task, label)
            else:
                check_value_map(where, task, label)
            size = size or label.shape[:2]
            if label.shape[:2] != size:
                other = "the image" if self.labels_match_image else "the other labels"
                raise ValueError(
                    f"{where}: the {name} label is {label.shape[0]}x{label.shape[1]} (height x width) but "
                    f"{other} of '{self.ids[index]}': {size[0]}x{size[1]}. {self._why_sizes_differ(index)}"
                )

    def _why_sizes_differ(self, index: int) -> str:
        orientation = orientation_in(Path(self.source(index)))
        if orientation > 4:  # shown with height and width exchanged
            return (
                f"The image says that it is shown turned (orientation {orientation}), and data sets read the "
                "stored pixels. Turn them, e.g. with `mogrify -auto-orient`, if labels fit the turned image."
            )
        return (
            "Is this another version of the data set, or a resized copy? Take labels and images from one "
            "release."
        )


def check_class_map(where: str, task: Task, label: NDArray[Any]) -> None:
    """Refuse what is no map (H, W) of ids 0..num_classes-1 and 255.

    Raises:
        ValueError: names `where` and the first id out of range.
    """
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"{where}: a {task.name} label must be an integer map (H, W), got shape {label.shape} of "
            f"{label.dtype}."
        )
    wrong = (label >= task.num_classes) & (label != IGNORE)
    if np.issubdtype(label.dtype, np.signedinteger):
        wrong |= label < 0
    if wrong.any():
        ids = np.unique(label[wrong])
        listing = ", ".join(str(int(item)) for item in ids[:5]) + (", ..." if len(ids) > 5 else "")
        raise ValueError(
            f"{where}: class id {listing} out of range; {task.name} has the ids 0..{task.num_classes - 1} "
            f"and {IGNORE} = no label. Map or ignore the other ids, or give the task more classes."
        )


def check_instance_map(where: str, task: Task, label: NDArray[Any]) -> None:
    """Refuse what is no map (H, W) of 0, 255 and instance ids of the task's classes.

    Raises:
        ValueError: names `where` and an id out of range.
    """
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"{where}: a {task.name} label must be an integer map (H, W), got shape {label.shape} of "
            f"{label.dtype}."
        )
    top = BASE * (task.num_classes + 1)
    wrong = (label < 0) | (label >= top) | ((label > 0) & (label < IGNORE))
    if wrong.any():
        raise ValueError(
            f"{where}: id {int(label[wrong][0])} is neither 0 (no instance), {IGNORE} (no label) nor an "
            f"instance id {BASE}..{top - 1} of {task.num_classes} classes; make the map with "
            "mtvision.core.instances.encode_instances."
        )


def check_value_map(where: str, task: Task, label: NDArray[Any]) -> None:
    """Refuse what is no float map (H, W, label_channels).

    Raises:
        ValueError: names `where`.
    """
    if label.ndim != 3 or label.shape[2] != task.label_channels or label.dtype != np.float32:
        raise ValueError(
            f"{where}: a {task.name} label must be a float32 map (H, W, {task.label_channels}), got shape "
            f"{label.shape} of {label.dtype}."
        )
