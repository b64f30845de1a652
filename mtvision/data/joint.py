"""Several data sets with different label sets as one."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

from mtvision.core.naming import look_up
from mtvision.core.random import generator
from mtvision.core.registry import DATASETS, TASKS
from mtvision.core.sample import RawSample, SampleKey
from mtvision.core.values import Count, Entry, Text
from mtvision.data.dataset import DenseDataset
from mtvision.data.maps.encoding import Encoding
from mtvision.data.samplers import JointBatchSampler, Mixing, TrainingBatchSampler, whole_ratios
from mtvision.data.transforms import Transform
from mtvision.protocols import Protocol

_log = logging.getLogger("mtvision")


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """What a part says besides the options of its data set.

    Args:
        name: in the ids of samples; by default the part's type.
    """

    name: Text | None = None


@DATASETS.register_module()
class JointDataset(DenseDataset):
    """Concatenated data sets; each has labels of some of the protocol's tasks, together they have all.

    A sample has no labels for tasks that its part does not offer. Losses and scores skip them. A part that
    offers none of the protocol's tasks, as in a single-task run of a joint config, is left out. Ids are
    `<part's name>/<id>`. In training the parts are drawn by ratio (`JointBatchSampler`); evaluation reads
    every image once.

    Args:
        parts: configs `dict(type=..., ...)` of data sets. Besides their own options: `tasks`, what the part
            has labels of (default: all), and `name` (default: its type).
        ratios: share of each part in the training draws; by the number of images if omitted.
        mixing: `mixed` puts several parts into a batch, `homogeneous` draws each step's batch, on all
            processes, from one part.
        protocol: the union of the parts' tasks; its `splits` count the images of all parts together.
        split: of the parts that name none.
        transforms: for every part, instead of its own.
        seed: decides every random draw.

    Raises:
        ValueError: no part, two parts of one name, not one ratio per part, or a task that no part has.
        UnknownNameError: a part's type, option or task.
    """

    def __init__(
        self,
        *,
        parts: Sequence[
            Annotated[Mapping[str, Any], Entry("DATASETS", also="mtvision.data.joint:PartOptions")]
        ],
        ratios: Sequence[float] | None = None,
        mixing: Mixing = "mixed",
        protocol: Protocol | None = None,
        split: str = "train",
        transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] | None = None,
        seed: Count = 0,
    ) -> None:
        union = self.choose_protocol(protocol, None)
        if ratios is not None and len(ratios) != len(parts):
            raise ValueError(f"JointDataset: {len(parts)} parts but {len(ratios)} ratios; give one per part.")
        number = len(parts)
        parts, ratios = _of_use(parts, ratios, union)
        shared = {} if transforms is None else {"transforms": transforms}
        self.parts: dict[str, DenseDataset] = {}
        for config in parts:
            name = _name(config)
            if name in self.parts:
                raise ValueError(f"JointDataset: two parts are named '{name}'; give each a name=.")
            self.parts[name] = _build({"split": split, **config, **shared}, union, seed)
        if not self.parts:
            raise ValueError("JointDataset: parts is empty; give configs of data sets, dict(type=..., ...).")
        offered = {task for part in self.parts.values() for task in part.protocol.task_names}
        lacking = [task for task in union.task_names if task not in offered]
        if lacking:
            raise ValueError(
                f"JointDataset: no part has labels of {', '.join(lacking)} (protocol '{union.id}'). Add the "
                "task to a part's tasks=[...], or leave it out of the protocol."
            )
        self.mixing: Mixing = mixing
        self.lengths = [len(part) for part in self.parts.values()]
        self.ratios = whole_ratios(self.lengths if ratios is None else ratios)
        self._ends = list(accumulate(self.lengths))
        super().__init__(
            ids=[f"{name}/{item}" for name, part in self.parts.items() for item in part.ids],
            protocol=union,
            split=split,
            seed=seed,
            check_split=len(parts) == number,
        )
        self.batch_sampler(1, seed=seed)  # says now what is wrong with ratios or mixing

    def batch_sampler(
        self, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> TrainingBatchSampler:
        """Training batches in which the parts have their ratios."""
        return JointBatchSampler(
            self.lengths, self.ratios, batch_size, self.mixing, seed=seed, rank=rank, world_size=world_size
        )

    def place(self, index: int) -> tuple[DenseDataset, int]:
        """The part that holds an image, and the image's index there."""
        number = bisect_right(self._ends, index)
        return list(self.parts.values())[number], index - (self._ends[number] - self.lengths[number])

    def read(self, index: int) -> RawSample:
        """The part's raw sample under its joint id."""
        part, own = self.place(index)
        raw = part.read(own)
        return raw.with_(meta=replace(raw.meta, id=self.ids[index]))

    def transformed(self, key: SampleKey) -> RawSample:
        """As its part transforms it, with random draws of its own."""
        part, own = self.place(key.index)
        raw = self.read(key.index)
        part.validate(own, raw)
        return part.pipeline(raw, generator(self.seed, key.epoch, key.index))

    def validate(self, index: int, raw: RawSample) -> None:
        """Check against the contract of the image's part."""
        part, own = self.place(index)
        part.validate(own, raw)

    def source(self, index: int, task: str | None = None) -> str:
        """File of the image (`task=None`) or of one label."""
        part, own = self.place(index)
        return part.source(own, task)

    def files(self) -> dict[str, Path]:
        """{part, slash, name within the part: path}."""
        return {
            f"{name}/{item}": path for name, part in self.parts.items() for item, path in part.files().items()
        }

    def files_of(self, task: str | None) -> dict[str, Path]:
        """{part, slash, name within the part: path}, of the parts that have the task."""
        return {
            f"{name}/{item}": path
            for name, part in self.parts.items()
            if task is None or task in part.tasks
            for item, path in part.files_of(task).items()
        }

    def remarks(self) -> Sequence[str]:
        """Those of all parts."""
        return [f"{name}: {remark}" for name, part in self.parts.items() for remark in part.remarks()]

    def encodings(self) -> Mapping[str, Encoding]:
        """Those of all parts, each after its part's name."""
        return {
            f"{name}/{task}": item
            for name, part in self.parts.items()
            for task, item in part.encodings().items()
        }

    def parameters(self) -> Mapping[str, Any]:
        """Of every part, with its tasks. Ratios and mixing are no content: they decide order only."""
        return {
            name: {"tasks": list(part.protocol.task_names), **part.parameters()}
            for name, part in self.parts.items()
        }


def _of_use(
    parts: Sequence[Mapping[str, Any]], ratios: Sequence[float] | None, union: Protocol
) -> tuple[list[Mapping[str, Any]], list[float] | None]:
    """Parts and ratios without the tasks that the protocol was restricted to leave out.

    A part that has no task left is dropped, with a log line.
    """
    kept, shares = [], []
    for index, part in enumerate(parts):
        name, given = _name(part), part.get("tasks")
        if given:
            for task in given:  # one that no protocol has is a typing error and not a restriction
                look_up(f"task of part '{name}'", task, dict.fromkeys((*TASKS, *union.task_names)))
            tasks = [task for task in given if task in union.task_names]
            if not tasks:
                _log.warning(
                    "joint data: part '%s' has labels of %s only and is left out of a run of %s.",
                    name, ", ".join(given), ", ".join(union.task_names),
                )  # fmt: skip
                continue
            part = {**part, "tasks": tasks}
        kept.append(part)
        if ratios is not None:
            shares.append(ratios[index])
    return kept, None if ratios is None else shares


def _name(config: Mapping[str, Any]) -> str:
    if not isinstance(config, Mapping) or "type" not in config:
        raise TypeError(f"JointDataset: a part must be a config dict(type=..., ...), got {config!r}.")
    kind = config["type"]
    return str(config.get("name") or (kind if isinstance(kind, str) else kind.__name__))


def _build(config: Mapping[str, Any], union: Protocol, seed: int) -> DenseDataset:
    own = {key: value for key, value in config.items() if key != "name"}
    # a part derives labels from tasks it does not offer, so it gets the whole protocol, and `tasks` beside it
    dataset: DenseDataset = DATASETS.build(own, protocol=replace(union, splits={}), seed=seed)
    return dataset
