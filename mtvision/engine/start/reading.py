"""Read a bounded sample of every split, the same in every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mtvision.core.sample import RawSample, Sample
from mtvision.data.check import Finding, SplitStatistics, TaskStatistics, collect, judge, judge_overlap
from mtvision.data.dataset import DenseDataset

AT_MOST = 64
"""Images that are read of a split where a few show no more than one class of a task, or no label."""
SHARED = 4
"""Images whose id is in two splits and whose pixels are compared."""


SAME_FILES = "a score on images that were trained on, or selected on, says nothing about others."
SAME_SCORE = "{} of the pictures looked at are in both."


@dataclass(frozen=True)
class SplitLook:
    """What was read of one split.

    Args:
        dataset: the split.
        statistics: counts over the images read.
        labels: {task: label} of the first images, untransformed.
    """

    dataset: DenseDataset
    statistics: SplitStatistics
    labels: Sequence[Mapping[str, Tensor]]


def spread(length: int, count: int) -> list[int]:
    """At most `count` of `length` indices, at even distances from the first on.

    >>> spread(10, 4)
    [0, 2, 5, 7]
    """
    count = min(count, length)
    return [position * length // count for position in range(count)]


def read_splits(datasets: Mapping[str, DenseDataset], count: int) -> dict[str, SplitLook]:
    """Read the samples of all splits; an image that cannot be read is a failure in the statistics.

    Besides the images at even distances, some are read whose ids two splits share.

    Args:
        datasets: {split: data set}.
        count: images of each.
    """
    chosen = {name: spread(len(dataset), count) for name, dataset in datasets.items()}
    names = list(datasets)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            places = [{one: i for i, one in enumerate(datasets[name].ids)} for name in (first, second)]
            common = [one for one in places[0] if one in places[1]]
            for index in spread(len(common), min(SHARED, count)):
                for name, place in zip((first, second), places, strict=True):
                    chosen[name].append(place[common[index]])
    return {
        name: _read(dataset, list(dict.fromkeys(chosen[name])), count) for name, dataset in datasets.items()
    }


def judge_splits(splits: Mapping[str, SplitLook]) -> list[Finding]:
    """Findings about the samples, and images that two splits share."""
    found = []
    for name, look in splits.items():
        read = look.statistics.read + len(look.statistics.failures)
        for item in judge(look.dataset, look.statistics, complete=read == len(look.dataset), opened=True):
            place = item.where.removeprefix(look.dataset.split)
            found.append(Finding(item.level, f"{name}{place}", item.text))
    return [*found, *_shared(splits)]


def _shared(splits: Mapping[str, SplitLook]) -> list[Finding]:
    """Pictures that two splits share: an error in copies, a warning where it is meant or hurts no score.

    Who trains and scores on the same files, to see a network overfit, says so in the config.
    """
    found = []
    names = list(splits)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            pair = {name: splits[name] for name in (first, second)}
            nothing: dict[str, list[str]] = {name: [] for name in pair}  # one name does not make one picture
            findings = judge_overlap({name: look.statistics for name, look in pair.items()}, nothing)
            files, others = (set(look.dataset.files_of(None).values()) for look in pair.values())
            if findings and files & others:
                text = f"{len(files & others)} files are in both: {SAME_FILES}"
                found.append(Finding("warning", f"{first}, {second}", text))
            elif "train" in pair:
                found += findings
            else:
                found += [
                    Finding("warning", item.where, SAME_SCORE.format(len(findings))) for item in findings[:1]
                ]
    return found


def _read(dataset: DenseDataset, indices: Sequence[int], count: int) -> SplitLook:
    labels: list[Mapping[str, Tensor]] = []

    def keep(raw: RawSample) -> None:
        if len(labels) < count:
            labels.append(Sample.from_raw(raw).labels)

    statistics = collect(dataset, indices, seen=keep)
    if any(_says_little(statistics.tasks.get(name, TaskStatistics())) for name in dataset.tasks):
        more = [index for index in spread(len(dataset), AT_MOST) if index not in set(indices)]
        statistics.add(collect(dataset, more))
    return SplitLook(dataset, statistics, labels)


def _says_little(counted: TaskStatistics) -> bool:
    """Whether nothing is labelled, or everything alike."""
    return not counted.labelled or counted.low == counted.high
