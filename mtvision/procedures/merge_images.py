"""The training images that merging sees: a few for statistics, a held-out slice to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from mtvision.core.random import is_held_out
from mtvision.core.sample import Batch
from mtvision.data.dataset import DenseDataset
from mtvision.data.part import PartOfDataset
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import State
from mtvision.models.factory import build_network
from mtvision.recipe.building import without_pretrained
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, evaluation_loader
from mtvision.recipe.settings import protocol_of, to_plain_data


def spread_images(config: RunConfig, images: int, whole: DenseDataset | None = None) -> Iterator[Batch]:
    """Some training images, evenly spread over the set, with the transforms of evaluation.

    Args:
        config: with `train_data`; transforms are those of `val_data` or `test_data`.
        images: how many, at most.
        whole: the training set, if it is open.
    """
    dataset = training_set(config) if whole is None else whole
    count = min(images, len(dataset))
    chosen = {dataset.ids[index * len(dataset) // count] for index in range(count)}
    return iter(_loader(config, dataset, chosen.__contains__))


def merge_problem(
    config: RunConfig, parts: Mapping[str, str], files: Mapping[str, State], share: float
) -> MergeProblem:
    """What a merger learns from: the held-out slice of the training set, and the network of the config.

    The slice has the transforms of evaluation and the batch size of training. Batch norms use the running
    statistics of the state.

    Args:
        config: of the network with all tasks, with `train_data`.
        parts: {tensor: `shared` or a task}.
        files: {task: state of its parent}.
        share: of the training images, chosen by id.

    Raises:
        ValueError: no image is held out, or `share` is no share.
    """
    is_held_out("", share)  # refuses a share out of range
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tasks = protocol_of(config).tasks
    network = build_network(without_pretrained(config["model"]), tasks)
    own = {
        task: {name: file[name].clone().to(device) for name, part in parts.items() if part == task}
        for task, file in files.items()
    }
    network.load_state_dict(
        {name: item for state in own.values() for name, item in state.items()}, strict=False
    )
    network.to(device).eval().requires_grad_(False)
    whole = training_set(config)

    def predict(state: State, batch: Batch, names: Sequence[str]) -> Mapping[str, Tensor]:
        options = {"tasks": list(names), "size": batch.label_size}
        found: Mapping[str, Tensor] = functional_call(network, dict(state), (batch.image,), options)
        return found

    def batches() -> Iterator[Batch]:
        return held_out_batches(config, share, device, whole)

    record = {"held_out": {"share": share, "images": sum(is_held_out(name, share) for name in whole.ids)}}
    return MergeProblem(tasks=tasks, predict=predict, batches=batches, own=own, device=device, record=record)


def held_out_batches(
    config: RunConfig, share: float, device: torch.device, whole: DenseDataset | None = None
) -> Iterator[Batch]:
    """A pass over the held-out slice of the training set, with the transforms of evaluation.

    Args:
        config: with `train_data`.
        share: of the training images, chosen by id.
        device: of the batches.
        whole: the training set, if it is open.

    Raises:
        ValueError: no image is held out.
    """
    dataset = training_set(config) if whole is None else whole
    for batch in _loader(config, dataset, lambda name: is_held_out(name, share)):
        yield batch.to(device)


def training_set(config: RunConfig) -> DenseDataset:
    """The training images with the transforms of evaluation."""
    like = to_plain_data(config["val_data"] or config["test_data"] or {}).get("dataset", {})
    section = to_plain_data(config["train_data"] or {})
    dataset = {**section.get("dataset", {}), "transforms": like.get("transforms", "tensor")}
    return build_dataset("train_data", {"dataset": dataset}, protocol_of(config), int(config["seed"]))


def _loader(config: RunConfig, whole: DenseDataset, keep: Callable[[str], bool]) -> Any:
    section = to_plain_data(config["train_data"] or {})
    loading = {"batch_size": section.get("batch_size", 1), "num_workers": section.get("num_workers", 0)}
    return evaluation_loader(PartOfDataset(whole, keep), loading)
