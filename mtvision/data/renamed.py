"""Labels of a data set under names of your own, e.g. one depth map for two depth tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.data.dataset import DenseDataset
from mtvision.data.maps.encoding import Encoding
from mtvision.data.samplers import TrainingBatchSampler
from mtvision.data.transforms import Transform
from mtvision.protocols import Protocol


@DATASETS.register_module()
class RenamedLabels(DenseDataset):
    """A data set with fixed label names, for a protocol whose tasks have other names.

    Several tasks may take the same label. `FolderDataset` and `CocoDataset` need no such wrapper: their
    `labels` are named after the tasks.

    Args:
        dataset: config `dict(type=..., ...)` of the data set, without `transforms`.
        names: {task: name that the data set gives its label}; a task that is not listed keeps its own name.
        protocol: with the tasks.
        split: of the data set, if it names none.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.

    Raises:
        UnknownNameError: `names` has a task that the protocol does not have, or the data set no such label.
        ValueError, FileNotFoundError: as the data set.
    """

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        names: Mapping[str, str],
        protocol: Protocol | None = None,
        split: str = "train",
        transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] = "tensor",
        seed: int = 0,
        tasks: Sequence[str] | None = None,
    ) -> None:
        full = self.choose_protocol(protocol, None)
        for name in names:
            look_up("task in names", name, full.known_tasks)
        chosen = self.choose_protocol(full, tasks)
        self.names = {name: names.get(name, name) for name in chosen.task_names}
        inner = {
            label: replace(chosen.task(name), name=label)
            for name, label in reversed(self.names.items())  # of several tasks the first counts
        }
        own = replace(chosen, tasks=tuple(inner.values()), loss_weights={}, baselines={}, unselected=())
        if "transforms" in dataset:
            raise ValueError(
                "RenamedLabels: the data set inside has transforms, which would not run. Give transforms= to "
                "RenamedLabels itself."
            )
        named = {"split": split} if "split" in DATASETS.parameters(dataset.get("type")) else {}
        self.dataset: DenseDataset = DATASETS.build({**named, **dataset}, protocol=own, seed=seed)
        self.labels_match_image = self.dataset.labels_match_image
        super().__init__(
            ids=self.dataset.ids,
            protocol=chosen,
            split=self.dataset.split,
            transforms=transforms,
            seed=seed,
            check_split=False,
        )

    def read(self, index: int) -> RawSample:
        """The raw sample of the data set with its labels renamed."""
        raw = self.dataset.read(index)
        labels = {name: raw.labels[label] for name, label in self.names.items() if label in raw.labels}
        return raw.with_(labels=labels, tasks=self.tasks)

    def source(self, index: int, task: str | None = None) -> str:
        """File of the image (`task=None`) or of one label."""
        return self.dataset.source(index, None if task is None else self.names[task])

    def files(self) -> dict[str, Path]:
        """Those of the data set."""
        return self.dataset.files()

    def files_of(self, task: str | None) -> dict[str, Path]:
        """Those of the images, or of the label that a task takes."""
        return self.dataset.files_of(None if task is None else self.names[task])

    def remarks(self) -> Sequence[str]:
        """Those of the data set."""
        return self.dataset.remarks()

    def usual_classes(self) -> Mapping[str, Mapping[int, float]]:
        """Those of the data set, under the names of the tasks."""
        known = self.dataset.usual_classes()
        return {name: known[label] for name, label in self.names.items() if label in known}

    def encodings(self) -> Mapping[str, Encoding]:
        """Those of the data set."""
        return self.dataset.encodings()

    def parameters(self) -> Mapping[str, Any]:
        """Those of the data set, and the names."""
        return {"names": dict(self.names), "dataset": self.dataset.parameters()}

    def batch_sampler(
        self, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> TrainingBatchSampler:
        """As the data set orders its images."""
        return self.dataset.batch_sampler(batch_size, seed=seed, rank=rank, world_size=world_size)
