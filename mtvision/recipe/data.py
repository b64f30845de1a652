"""Data sets and loaders from a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from mtvision.core.registry import DATASETS
from mtvision.core.sample import Batch
from mtvision.data.dataset import DenseDataset
from mtvision.data.samplers import EvalBatchSampler
from mtvision.data.shared_batches import BatchLoader
from mtvision.losses.loss import labelled
from mtvision.protocols import Protocol
from mtvision.recipe.sections import LOADER_DEFAULTS
from mtvision.recipe.settings import check_keys, to_plain_data
from mtvision.runtime.launch import rank_and_world_size


def build_dataset(
    section: str, config: Mapping[str, Any] | None, protocol: Protocol, seed: int
) -> DenseDataset:
    """The data set of `train_data`, `val_data` or `test_data`.

    Raises:
        ValueError: the section or its `dataset` is missing.
        TypeError: the data set's own code calls something with wrong arguments; names section and class.
        UnknownNameError: unknown key, data set or argument.
    """
    if not config:
        raise ValueError(
            f"config: '{section}' is missing; expected dict(dataset=dict(type=...), batch_size=...)."
        )
    check_keys(f"key of '{section}'", config, ("dataset", *LOADER_DEFAULTS))
    if "dataset" not in config:
        raise ValueError(f"config: '{section}' has no 'dataset'.")
    entry = to_plain_data(config["dataset"])
    try:
        dataset: DenseDataset = DATASETS.build(entry, protocol=protocol, seed=seed)
    except TypeError as error:  # from a constructor of one's own it says neither of these
        raise TypeError(f"{section}.dataset, {entry.get('type')}: {error}") from error
    if len(dataset) == 0:
        raise ValueError(f"{section}: the data set is empty.")
    return dataset


GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly however many there are."""


def first_labelled(dataset: DenseDataset, most: int | None = None) -> dict[str, int]:
    """{task: index of an image with a labelled pixel}; tasks for which none was found are absent.

    Images are taken from all over the set, beginning with the first. Reading stops as soon as every task has
    an image.

    Args:
        dataset: any.
        most: how many images to read, by default all of them.
    """
    found: dict[str, int] = {}
    order = sorted(range(len(dataset)), key=lambda index: index * GOLDEN % 1)
    for index in order[:most]:
        for name, label in dataset[index].labels.items():
            if name not in found and bool(labelled(label).any()):
                found[name] = index
        if len(found) == len(dataset.tasks):
            break
    return found


def require_labels(section: str, dataset: DenseDataset) -> dict[str, int]:
    """Refuse to score a task that no image has a label of.

    Args:
        section: of the config, for the message.
        dataset: of that section.

    Returns:
        {task: index of an image with a labelled pixel}.

    Raises:
        ValueError: names the tasks; all images were read.
    """
    found = first_labelled(dataset)
    lacking = [name for name in dataset.tasks if name not in found]
    if lacking:
        raise ValueError(
            f"{section}: no labelled pixel of {', '.join(lacking)} in any of {len(dataset):,} images, so "
            "it has no score. Look at the labels with `mtvision check-dataset`, or leave the task out with "
            "`tasks=[…]`."
        )
    return found


def _prepare_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one worker is one process: threads inside it would fight for the same cores
    torch.set_num_threads(1)


def _loader(
    dataset: DenseDataset, batch_sampler: Any, workers: int, *, by_shape: bool = False
) -> DataLoader[Batch]:
    return BatchLoader(
        dataset,
        by_shape=by_shape,
        batch_sampler=batch_sampler,
        num_workers=workers,
        worker_init_fn=_prepare_worker,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, so that starting an epoch draws nothing from the global one
    )


def train_loader(dataset: DenseDataset, config: Mapping[str, Any], seed: int) -> DataLoader[Batch]:
    """Endless loader in the data set's training order; `batch_size` is per process."""
    rank, world_size = rank_and_world_size()
    try:
        sampler = dataset.batch_sampler(
            int(config["batch_size"]), seed=seed, rank=rank, world_size=world_size
        )
    except ValueError as error:
        raise ValueError(f"train_data: {error}") from error
    return _loader(dataset, sampler, int(config["num_workers"]))


def evaluation_loader(dataset: DenseDataset, config: Mapping[str, Any]) -> DataLoader[Batch]:
    """Every image exactly once over all processes; images of several sizes are a batch for each size."""
    rank, world_size = rank_and_world_size()
    sampler = EvalBatchSampler(len(dataset), int(config["batch_size"]), rank=rank, world_size=world_size)
    return _loader(dataset, sampler, int(config["num_workers"]), by_shape=True)
