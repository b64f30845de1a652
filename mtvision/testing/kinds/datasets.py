"""`check_dataset`: what every data set promises."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mtvision.core.instances import BASE
from mtvision.core.sample import Sample, SampleKey, collate
from mtvision.core.task import IGNORE, Task
from mtvision.data.dataset import DenseDataset
from mtvision.data.manifest import data_manifest
from mtvision.testing import modules
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import all_finite, expect
from mtvision.testing.report import NotApplicable, PropertyError, Report

MOST = 6
"""Images that are read."""


@dataclass(frozen=True, kw_only=True)
class DatasetCase:
    """A data set, best with the transforms of training.

    Args:
        make: returns a fresh data set of the same images, seed and transforms on each call.
        setting: its device and dtype are not used: data sets work on the CPU in the contract's dtypes.
        ordered: whether training visits every image once per epoch; False where images are drawn by ratio.
    """

    make: Callable[[], DenseDataset]
    setting: Setting = field(default_factory=Setting)
    ordered: bool = True

    @cached_property
    def dataset(self) -> DenseDataset:
        """The data set."""
        return self.make()

    @property
    def indices(self) -> range:
        """Of the images that are read."""
        return range(min(len(self.dataset), MOST))

    @cached_property
    def samples(self) -> list[Sample]:
        """Of epoch 3."""
        return [self.dataset[SampleKey(3, index)] for index in self.indices]


DATASET: Battery[DatasetCase] = Battery("dataset", "mtvision.testing.check_dataset(make, only=['{name}'])")


def check_dataset(
    make: Callable[[], DenseDataset],
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of data sets on one of them.

    Args:
        make: returns a fresh data set of the same images on each call; a few images suffice.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("dataset")` lists them.
        device: not used, as for every battery.
        dtype: not used, as for every battery.
        case: field of `DatasetCase`: `ordered`.

    >>> from functools import partial
    >>> from mtvision.data import SyntheticScenes
    >>> from mtvision.testing import check_dataset
    >>> make = partial(SyntheticScenes, length=3, size=(24, 32))
    >>> check_dataset(make, only=["samples_keep_the_contract", "order_of_reading_is_irrelevant"]).ok
    True
    """
    made = DatasetCase(make=make, setting=Setting(device, dtype), **case)
    return DATASET.run(subject_of(make), made, only=only, skip=skip)


def tensors_of(sample: Sample) -> dict[str, Tensor]:
    """Image and labels."""
    return {"image": sample.image, **{name: sample.labels[name] for name in sorted(sample.labels)}}


@DATASET.property("len(dataset); dataset.ids; dataset[len(dataset)]")
def length_and_ids(case: DatasetCase) -> None:
    """Every sample has a unique id, and an index behind the end is an `IndexError`."""
    dataset = case.dataset
    expect(len(dataset) == len(dataset.ids) > 0, f"{len(dataset)} samples, {len(dataset.ids)} ids.")
    expect(all(isinstance(item, str) and item for item in dataset.ids), "an id is no text or empty.")
    expect(len(set(dataset.ids)) == len(dataset), "an id occurs twice.")
    for index, sample in zip(case.indices, case.samples, strict=True):
        expect(
            sample.meta.id == dataset.ids[index],
            f"sample {index} says it is '{sample.meta.id}', ids[{index}] is '{dataset.ids[index]}'.",
        )
    try:
        dataset[len(dataset)]
    except IndexError:
        return
    raise PropertyError(f"dataset[{len(dataset)}] was accepted; there are {len(dataset)} samples.")


@DATASET.property(
    "sample = dataset[0]; sample.image.dtype, {n: (v.dtype, v.shape) for n, v in sample.labels.items()}"
)
def samples_keep_the_contract(case: DatasetCase) -> None:
    """Images are float32 (3, H, W); labels have the dtype, axes and range of their task."""
    for sample in case.samples:
        where, image = f"'{sample.meta.id}'", sample.image
        good = image.dtype == torch.float32 and image.ndim == 3 and image.shape[0] == 3
        expect(good, f"{where}: image {image.dtype} {tuple(image.shape)}, expected float32 (3, H, W).")
        all_finite([(f"{where}: image", image)])
        sizes = {tuple(item.shape[-2:]) for item in sample.labels.values()}
        expect(len(sizes) <= 1, f"{where}: labels of different sizes {sizes}.")
        if case.dataset.labels_match_image:
            expect(
                sizes <= {tuple(image.shape[-2:])},
                f"{where}: labels of {sizes}, image of {tuple(image.shape[-2:])}.",
            )
        for name, label in sample.labels.items():
            expect(name in case.dataset.tasks, f"{where}: a label of '{name}', which is no task.")
            _check_label(f"{where}: {name}", case.dataset.tasks[name], label)
        height, width = image.shape[-2:]
        top, left, bottom, right = sample.meta.padding
        content = (height - top - bottom, width - left - right)
        expect(
            tuple(sample.meta.size) == content,
            f"{where}: meta.size {tuple(sample.meta.size)}, image without padding {content}.",
        )


def _check_label(where: str, task: Task, label: Tensor) -> None:
    if task.label == "values":
        form = label.dtype == torch.float32 and label.ndim == 3 and label.shape[0] == task.label_channels
        expect(
            form,
            f"{where}: {label.dtype} {tuple(label.shape)}, expected float32 ({task.label_channels}, H, W).",
        )
        expect(not bool(label.isinf().any()), f"{where}: infinite values; NaN means no label.")
        return
    expect(
        label.dtype == torch.int64 and label.ndim == 2,
        f"{where}: {label.dtype} {tuple(label.shape)}, expected int64 (H, W).",
    )
    known = label[label != IGNORE]
    top = task.num_classes if task.label == "classes" else BASE * (task.num_classes + 1)
    outside = known[(known < 0) | (known >= top)]
    expect(not outside.numel(), f"{where}: id {outside[:1].tolist()} outside 0..{top - 1} and {IGNORE}.")


@DATASET.property("make()[SampleKey(epoch, index)] twice, and dataset.seed")
def samples_follow_seed_epoch_and_index(case: DatasetCase) -> None:
    """A sample is a function of seed, epoch and index: another object gives the same, to the bit."""
    torch.manual_seed(99)
    again = case.make()
    for index, sample in zip(case.indices, case.samples, strict=True):
        torch.rand(3)  # the global stream plays no part
        other = again[SampleKey(3, index)]
        modules.agree_exactly(
            tensors_of(other), tensors_of(sample), f"'{sample.meta.id}' of a fresh data set:"
        )
        expect(other.meta == sample.meta, f"'{sample.meta.id}': meta {other.meta}, before {sample.meta}.")


@DATASET.property("dataset[2], dataset[0], dataset[2]")
def order_of_reading_is_irrelevant(case: DatasetCase) -> None:
    """Reading in another order, or twice, gives the same samples; none shares memory with another."""
    kept = [{name: item.clone() for name, item in tensors_of(one).items()} for one in case.samples]
    for index in [*reversed(case.indices), 0]:
        sample = case.dataset[SampleKey(3, index)]
        modules.agree_exactly(tensors_of(sample), kept[index], f"index {index} again:")
        for item in tensors_of(sample).values():
            item.zero_()
    for index in case.indices:
        modules.agree_exactly(
            tensors_of(case.dataset[SampleKey(3, index)]),
            kept[index],
            f"index {index} after an earlier sample was overwritten:",
        )


@DATASET.property("DataLoader(dataset, num_workers=2) against DataLoader(dataset, num_workers=0)")
def workers_change_nothing(case: DatasetCase) -> None:
    """A loader with worker processes gives the batches of one without."""
    found: dict[int, list[dict[str, Tensor]]] = {}
    size = min(2, len(case.dataset))
    for workers in (0, 2):
        torch.manual_seed(workers)
        sampler = case.dataset.batch_sampler(size, seed=3)
        loader = DataLoader(case.dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate_one)
        found[workers] = [
            tensors for batch, _ in zip(loader, range(2), strict=False) for tensors in map(tensors_of, batch)
        ]
    for position, (got, want) in enumerate(zip(found[2], found[0], strict=True)):
        modules.agree_exactly(got, want, f"sample {position} from workers:")


def collate_one(samples: list[Sample]) -> list[Sample]:
    """Samples as they are: images of a data set may differ in size."""
    return samples


@DATASET.property(
    "sampler = dataset.batch_sampler(1, seed=0); [sampler.batch(i) for i in range(len(dataset))]"
)
def training_covers_every_image(case: DatasetCase) -> None:
    """An epoch visits every image once, in another order each time, on any number of processes."""
    if not case.ordered:
        raise NotApplicable("ordered=False: images are drawn by ratio, not in epochs.")
    count = len(case.dataset)
    sampler = case.dataset.batch_sampler(1, seed=0)
    for epoch in range(2):
        keys = [key for step in range(count) for key in sampler.batch(epoch * count + step)]
        seen = sorted(key.index for key in keys)
        expect(seen == list(range(count)), f"epoch {epoch} visits {seen}, expected each of {count} once.")
        expect({key.epoch for key in keys} == {epoch}, f"epoch {epoch} has keys of {keys[0].epoch}.")
    if count > 1:
        ranks = [case.dataset.batch_sampler(1, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
        together = [key for step in range(count // 2) for own in ranks for key in own.batch(step)]
        alone = case.dataset.batch_sampler(2, seed=0)
        want = [key for step in range(count // 2) for key in alone.batch(step)]
        expect(together == want, f"two processes see {together}, one sees {want}.")


@DATASET.property("sampler.start_batch = 2; next(iter(sampler)) against sampler.batch(2)")
def training_starts_anywhere(case: DatasetCase) -> None:
    """A sampler that starts late gives what it would have given."""
    sampler, late = (case.dataset.batch_sampler(1, seed=5) for _ in range(2))
    from_start = [keys for keys, _ in zip(sampler, range(4), strict=False)]
    late.start_batch = 2
    found = [keys for keys, _ in zip(late, range(2), strict=False)]
    expect(found == from_start[2:], f"from batch 2: {found}, expected {from_start[2:]}.")


@DATASET.property("collate([dataset[i] for i in range(len(dataset))]).present")
def partial_labels_are_absent_keys(case: DatasetCase) -> None:
    """A missing label is an absent key; a batch says which samples have a task and fills the others."""
    shape = case.samples[0].image.shape
    same_size = [item for item in case.samples if item.image.shape == shape]
    batch = collate(same_size)
    for name, flags in batch.present.items():
        for sample, flag, label in zip(same_size, flags.tolist(), batch.labels[name], strict=True):
            expect(flag == (name in sample.labels), f"'{sample.meta.id}': present['{name}'] is {flag}.")
            empty = label.isnan().all() if label.is_floating_point() else (label == IGNORE).all()
            expect(flag or bool(empty), f"'{sample.meta.id}': no {name}, but the batch holds labels.")
    for name in batch.labels:
        expect(name in case.dataset.tasks, f"the batch has labels of '{name}', which is no task.")


@DATASET.property("data_manifest(make()), data_manifest(dataset, content=True)")
def manifest_is_stable(case: DatasetCase) -> None:
    """The manifest of a fresh data set is the same, lists files that exist, and its parameters are plain."""
    first = data_manifest(case.dataset)
    for what, other in {"a fresh data set": case.make(), "a second call": case.dataset}.items():
        found = data_manifest(other)
        expect(found == first, f"{what} has the manifest {found}, the first {first}.")
    missing = [name for name, path in case.dataset.files().items() if not path.exists()]
    expect(not missing, f"files() lists {missing[:3]}, which do not exist.")
    try:
        json.dumps(dict(case.dataset.parameters()), default=_refuse)
    except TypeError as error:
        raise PropertyError(f"parameters() is no plain data: {error}") from error


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} {value!r}")


@DATASET.property("pickle.loads(pickle.dumps(dataset))[SampleKey(epoch, index)]")
def pickles(case: DatasetCase) -> None:
    """A pickled data set, as worker processes get it, gives the same samples."""
    other = pickle.loads(pickle.dumps(case.dataset))
    for index, sample in zip(case.indices, case.samples, strict=True):
        modules.agree_exactly(
            tensors_of(other[SampleKey(3, index)]), tensors_of(sample), f"'{sample.meta.id}' of a pickle:"
        )
