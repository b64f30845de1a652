"""Rules that turn the counts of a split into findings: errors that change scores, and oddities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtvision.core.files.json_file import read_json
from mtvision.core.task import Task
from mtvision.data.check.statistics import SplitStatistics, TaskStatistics
from mtvision.data.dataset import DenseDataset
from mtvision.data.published import PublishedDataset

Level = Literal["error", "warning", "note"]
FAR = 100.0
"""Metres that no mean depth of a scene reaches."""
FAINT = 0.02
"""Largest value of edge maps that were divided by 255 once too often; up to five annotators are counted."""
ENOUGH = 8
"""Images in which the usual classes of a published set occur."""
SHOWN = 10
"""Findings of one kind that are spelt out."""


@dataclass(frozen=True)
class Finding:
    """One finding about a data set.

    Args:
        level: `error` would corrupt a score; `warning` should be looked at; `note` explains.
        where: split, or split and task.
        text: what was found, and what to do.
    """

    level: Level
    where: str
    text: str


def judge(
    dataset: DenseDataset, statistics: SplitStatistics, *, complete: bool = True, opened: bool = False
) -> list[Finding]:
    """All findings about one split.

    Args:
        dataset: the split.
        statistics: what `collect` counted in it.
        complete: whether every image was read; absence of classes proves nothing otherwise.
        opened: the data set is to be used as it was opened. Its number of images, absent files and frames are
            not judged, because its options accepted them. A likely mark for "no label" in depth is a warning
            then.
    """
    split = dataset.split
    found = [Finding("warning", split, remark) for remark in dataset.remarks()]
    found += [] if opened else [*_counts(dataset), *_frames(dataset, statistics)]
    found += [*_failures(split, statistics), *_pictures(split, statistics)]
    for name, encoding in dataset.encodings().items():
        grave = encoding.task.geometry in ("depth", "disparity") and not opened
        level: Level = "error" if grave else "warning"
        found += [Finding(level, f"{split} {name}", doubt) for doubt in encoding.doubts]
    for name, task in dataset.tasks.items():
        counted = statistics.tasks.get(name, TaskStatistics())
        for rule in _RULES:
            for level, text in rule(task, counted):
                found.append(Finding(level, f"{split} {name}", text))
        usual = dataset.usual_classes().get(name, {})
        found += [Finding(level, f"{split} {name}", text) for level, text in _unusual(task, counted, usual)]
        if complete:
            found += [Finding(level, f"{split} {name}", text) for level, text in _absent(task, counted)]
    return found


def judge_overlap(splits: Mapping[str, SplitStatistics], ids: Mapping[str, list[str]]) -> list[Finding]:
    """Images that occur in two splits, by name or by content."""
    found = []
    names = list(splits)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            where = f"{first}, {second}"
            # number-named sets (0.npy in every split) share names without sharing images
            common = sorted(set(splits[first].checksums) & set(splits[second].checksums))
            for checksum in common[:SHOWN]:
                a, b = splits[first].checksums[checksum][0], splits[second].checksums[checksum][0]
                found.append(
                    Finding("error", where, f"'{a}' and '{b}' are the same picture: the score would be on "
                            "training data. Compare the split lists with their source.")
                )  # fmt: skip
            if len(common) > SHOWN:
                found.append(Finding("error", where, f"{len(common)} pictures are in both splits."))
            shared = sorted(set(ids[first]) & set(ids[second]))
            if shared and not all(name.isdigit() and len(name) < 4 for name in shared) and not common:
                found.append(
                    Finding("error", where, f"{len(shared)} ids are in both lists, first '{shared[0]}'.")
                )
    return found


def judge_note(root: Path) -> list[Finding]:
    """Findings from the note that `tools/prepare_dataset.py` left in the folder."""
    try:
        note = read_json(root / "prepared.json")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [Finding("warning", "prepared", str(error))]
    if not isinstance(note, dict):
        return [Finding("warning", "prepared", f"{root / 'prepared.json'}: not a note of a preparation.")]
    found = [Finding("warning", "prepared", text) for text in note.get("notes", [])]
    found += [
        Finding("note", f"prepared {task}", f"off: {why}") for task, why in note.get("tasks_off", {}).items()
    ]
    found += [Finding("error", "prepared", text) for text in note.get("problems", [])]
    return found


def _counts(dataset: DenseDataset) -> Iterator[Finding]:
    expected = dataset.protocol.splits.get(dataset.split)
    if expected is not None and len(dataset) != expected:
        yield Finding(
            "error", dataset.split, f"{len(dataset)} images, the protocol has {expected}. Scores on "
            "another number of images are not comparable with any paper.",
        )  # fmt: skip
    if not isinstance(dataset, PublishedDataset):
        return
    for task in dataset.tasks:
        lacking = dataset.missing(task)
        if lacking:
            yield Finding(
                "error", f"{dataset.split} {task}",
                f"{len(lacking)} files are missing, first {lacking[0]}. {dataset.hint(task)}",
            )  # fmt: skip


def _failures(split: str, statistics: SplitStatistics) -> Iterator[Finding]:
    for message in list(statistics.failures.values())[:SHOWN]:
        yield Finding("error", split, message)
    if len(statistics.failures) > SHOWN:
        yield Finding("error", split, f"{len(statistics.failures)} images in all cannot be read.")


def _frames(dataset: DenseDataset, statistics: SplitStatistics) -> Iterator[Finding]:
    frame = dataset.frame if isinstance(dataset, PublishedDataset) else None
    other = {size: count for size, count in statistics.sizes.items() if size != frame}
    if frame is not None and other and isinstance(dataset, PublishedDataset):
        size, count = max(other.items(), key=lambda item: item[1])
        yield Finding(
            "error", dataset.split,
            f"{sum(other.values())} images are not {frame[0]}x{frame[1]} (height x width) but, e.g., "
            f"{size[0]}x{size[1]} ({count} images). {dataset.bad_copy}",
        )  # fmt: skip


def _pictures(split: str, statistics: SplitStatistics) -> Iterator[Finding]:
    twins = [names for names in statistics.checksums.values() if len(names) > 1]
    unseen = (
        f"have objects in their annotations that cover no pixel, {sum(statistics.unseen.values())} in all"
    )
    for what, names in (
        ("show nothing (one colour)", statistics.flat),
        ("have no colour", statistics.gray),
        ("say that they are shown turned; labels must fit the stored pixels", statistics.turned),
        ("are damaged JPEG files, perhaps gray or shifted in parts; look at them", statistics.patched),
        (unseen, list(statistics.unseen)),
        ("are repeated under another name", [" = ".join(names) for names in twins]),
    ):
        if names:
            listing = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            yield Finding("warning", split, f"{len(names)} images {what}: {listing}.")


Rule = Callable[[Task, TaskStatistics], Iterator[tuple[Level, str]]]


def _emptiness(_: Task, counted: TaskStatistics) -> Iterator[tuple[Level, str]]:
    if counted.images and not counted.labelled:
        yield "error", "no pixel has a label. Is it the right folder?"
    elif counted.empty:
        yield "note", f"{len(counted.empty)} of {counted.images} images have no labelled pixel."


def _directions(task: Task, counted: TaskStatistics) -> Iterator[tuple[Level, str]]:
    if task.geometry != "direction" or not counted.labelled:
        return
    share = counted.off_unit / counted.labelled
    if share > 0.5:
        yield (
            "error",
            (
                f"{share:.0%} of the vectors do not have length 1: they are encoded in another way than this "
                "packaging's (v + 1) / 2 * 255."
            ),
        )
    elif share > 0.05 and min(counted.facing) > 0.99 * counted.labelled:
        yield (
            "error",
            (
                f"no component is below 0, and {share:.0%} of the vectors do not have length 1: they are "
                "stored as 0..1. Decode them by 2 * v - 1."
            ),
        )
    elif share > 0.005:
        yield (
            "warning",
            (
                f"{share:.1%} of the vectors are far from length 1, e.g. gray borders (127, 127, 127) for "
                "'no normal'. They count as labels, as in the published code."
            ),
        )
    signs = [max(count, counted.labelled - count) / counted.labelled for count in counted.facing]
    if max(signs) < 0.95:
        yield (
            "warning",
            (
                "no axis has one sign although visible surfaces face the camera: axes may be wrong "
                f"(shares of the majority sign: {', '.join(f'{value:.2f}' for value in signs)})."
            ),
        )


def _distances(task: Task, counted: TaskStatistics) -> Iterator[tuple[Level, str]]:
    if task.geometry not in ("depth", "disparity") or not counted.labelled:
        return
    mean = counted.sums[0] / counted.labelled
    if task.unit == "m" and mean > FAR:
        yield (
            "error",
            (
                f"depth reaches {counted.high:g}: not metres. Millimetres would be 1000 times larger; "
                f"the mean is {mean:g}. Say scale=1000 for millimetres, or invalid= for a mark of 'no "
                "reading'."
            ),
        )
    elif task.unit == "m" and counted.high > FAR:
        yield (
            "warning",
            f"depth reaches {counted.high:g} m (mean {mean:.3g} m): is it a value for 'no reading'?",
        )
    if task.geometry == "disparity" and counted.high < 2:
        yield "error", f"disparity ends at {counted.high:g} pixels: another unit, or normalised."
    if counted.negative:
        yield (
            "note",
            (
                f"{counted.negative / counted.labelled:.1%} of the values are negative: invalid pixels "
                "that the loss learns, as the protocol's published code does; the score leaves them "
                "out."
            ),
        )
    if counted.beyond:
        limit = task.metric_option("max_depth")
        yield (
            "note",
            (
                f"{counted.beyond / counted.labelled:.2%} of the values ({counted.beyond} pixels) are "
                f"{limit:g} or more and are left out of the score."
            ),
        )


def _edges(task: Task, counted: TaskStatistics) -> Iterator[tuple[Level, str]]:
    if "edge" not in task.metric_names or not counted.labelled:
        return
    share = counted.sums[0] / counted.labelled
    if counted.low >= 0 and 0 < counted.high < FAINT:
        yield (
            "error",
            (
                f"edges end at {counted.high:.2g}: files that hold 0 and 1 were read as parts of 255 or "
                "65535. Say scale=1."
            ),
        )
    elif counted.low < 0 or counted.high > 1:
        yield "error", f"edges run from {counted.low:g} to {counted.high:g}, expected 0..1."
    elif share > 0.5:
        yield "error", f"{share:.0%} of the pixels are edges: the maps are inverted."
    elif share == 0:
        yield "error", "there is no edge at all."
    elif counted.between:
        yield "note", f"{counted.between / counted.labelled:.2%} of the pixels are neither 0 nor 1."


def _classes(task: Task, counted: TaskStatistics) -> Iterator[tuple[Level, str]]:
    if task.label != "classes" or not counted.labelled:
        return
    if len(counted.histogram) == 1 and task.num_classes > 1 and counted.images > 1:
        only = next(iter(counted.histogram))
        yield "error", f"every labelled pixel is class {only}: a mask or another kind of file was read."
    elif task.num_classes > 20 and counted.images >= 50 and counted.high < 14:
        yield (
            "error",
            f"ids end at {counted.high:g} of {task.num_classes}: these are labels of another class set.",
        )
    elif task.num_classes > 20 and counted.images >= ENOUGH and counted.high < 14:
        yield (
            "warning",
            f"ids end at {counted.high:g} of {task.num_classes} in {counted.images} images: are these labels "
            "of another class set?",
        )


def _unusual(task: Task, counted: TaskStatistics, usual: Mapping[int, float]) -> Iterator[tuple[Level, str]]:
    """Classes that every few images of a published set have, and these have not."""
    if counted.images < ENOUGH or not counted.labelled:
        return
    lacking = {
        index: counted.histogram.get(index, 0) / counted.labelled
        for index, least in usual.items()
        if counted.histogram.get(index, 0) / counted.labelled < least
    }
    if lacking:
        found = ", ".join(
            f"{task.class_names[index]} ({index}) has {share:.2%} of the pixels, expected at least "
            f"{usual[index]:.2%}"
            for index, share in lacking.items()
        )
        yield (
            "error",
            f"in {counted.images} images {found}: the ids are shifted by one, or of another packaging. Take "
            "the files of the published archive.",
        )


_RULES: tuple[Rule, ...] = (_emptiness, _directions, _distances, _edges, _classes)


def _absent(task: Task, counted: TaskStatistics) -> Iterator[tuple[Level, str]]:
    if task.label == "classes" and len(counted.histogram) > 1:
        names = task.class_names or tuple(str(i) for i in range(task.num_classes))
        absent = [name for index, name in enumerate(names) if not counted.histogram.get(index)]
        if absent:
            yield "warning", f"classes that never occur: {', '.join(absent)}."
