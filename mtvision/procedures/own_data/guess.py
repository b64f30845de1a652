"""What a folder of pictures and maps is: its tasks, classes, scales and splits, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.text import read_ids
from mtvision.core.task import IGNORE
from mtvision.data.maps.encoding import decide_files
from mtvision.data.maps.files import Stored, read_map
from mtvision.data.maps.options import MapOptions
from mtvision.procedures.own_data.groups import SPLIT_OF, Group, affixes
from mtvision.protocols.entries import build_task

LOOKED = 6
"""Files of a group that tell what it is."""
COUNTED = 300
"""Label files whose class ids are counted."""
MOST_CLASSES = 255
SCALES = (1000, 5000, 256, 100)
"""Units of a metre, the likeliest first."""
PLAUSIBLE = (0.3, 10.0)
"""Metres within which the median depth of a set is expected."""
SAME = 0.8
"""Two areas of which each covers this share of the other are one."""
HELD_OUT = 5
"""Every so many-th picture of a set without splits validates."""
CLASS_FILES = ("classes.txt", "class_names.txt", "labels.txt", "names.txt")


@dataclass
class Label:
    """A task that was found.

    Args:
        task: its name and kind.
        group: its files.
        options: of `FolderLabel`.
        entry: of `protocol.tasks`.
        remarks: what was assumed, and what would be said otherwise.
        shares: {class id on disk: share of the pixels}.
    """

    task: str
    group: Group
    options: dict[str, Any] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    shares: dict[int, float] = field(default_factory=dict)


@dataclass
class Guess:
    """Everything that a config needs.

    Args:
        root: the folder.
        images: the pictures.
        labels: the tasks.
        splits: {`train`, `val`, `test`: word of the folders, pattern of ids such as `learn*`, or names}.
        size: (H, W) of the pictures, the most frequent one.
        sizes: how many sizes occur among those looked at.
        left_out: groups that are no label, with the reason.
    """

    root: Path
    images: Group
    labels: list[Label]
    splits: dict[str, str | list[str]]
    size: tuple[int, int]
    sizes: int
    left_out: list[str] = field(default_factory=list)

    def count(self, split: str) -> int:
        """How many pictures a split has."""
        word = self.splits[split]
        if isinstance(word, list):
            return len(word)
        if "*" in word:
            return sum(name.startswith(word.removesuffix("*")) for name in self.images.names)
        return len(self.images.files[word])


def guess(root: Path, groups: Sequence[Group]) -> Guess:
    """Find out what a folder holds.

    Raises:
        ValueError: it has no pictures, or no labels for them.
    """
    looked = {id(group): _look(group) for group in groups}
    pictures = [group for group in groups if not group.told and _is_picture(looked[id(group)])]
    if not pictures:
        raise ValueError(
            f"{root}: no folder of colour pictures, found {', '.join(map(str, groups)) or 'no pictures'}. "
            "Give the folder above pictures and labels."
        )
    images = max(pictures, key=lambda group: len(group.paths))
    found: list[Label] = []
    left_out: list[str] = []
    for group in groups:
        if group is images:
            continue
        pair = affixes(sorted(group.names), images.names)
        if pair is None:
            left_out.append(f"{group}: names do not fit those of the pictures")
            continue
        label = _label(group, looked[id(group)], root)
        if isinstance(label, str):
            left_out.append(f"{group}: {label}")
        elif any(item.task == label.task for item in found):
            left_out.append(f"{group}: a second folder of {label.task}; choose one by hand")
        else:
            label.options |= _affix_options(group, images, *pair)
            found.append(label)
    if not found:
        reasons = "".join(f"\n  {line}" for line in left_out)
        raise ValueError(f"{root}: {images} are pictures, but there are no labels for them:{reasons}")
    _leave_out_unseen(found)
    sizes = [item.values.shape[:2] for item in looked[id(images)]]
    most = max(set(sizes), key=sizes.count)
    size = (int(most[0]), int(most[1]))
    return Guess(root, images, found, _splits(images), size, len(set(sizes)), left_out)


def _affix_options(group: Group, images: Group, prefix: str, tail: str) -> dict[str, Any]:
    options: dict[str, Any] = {"prefix": prefix} if prefix else {}
    if tail or group.folder == images.folder:
        options["suffix"] = f"{tail}{group.ending}"
    return options


def _look(group: Group) -> list[Stored]:
    """A few files, spread over the group; unreadable ones are left out."""
    paths = group.paths
    found = []
    for index in sorted({round(step * (len(paths) - 1) / LOOKED) for step in range(LOOKED)}):
        try:
            found.append(read_map(paths[index], palette="ids"))
        except (DecodeError, OSError):
            continue
    return found


def _is_picture(looked: Sequence[Stored]) -> bool:
    """Whether files are photographs: three channels that differ, and many colours."""
    colourful = 0
    for item in looked:
        values = item.values
        if values.shape[2] in (3, 4) and values.dtype == np.uint8:
            part = values[::4, ::4, :3].reshape(-1, 3).astype(np.int64)
            colours = len(np.unique(part @ np.array([65536, 256, 1])))
            colourful += colours > 64
    return colourful * 2 > len(looked)


def _label(group: Group, looked: Sequence[Stored], root: Path) -> Label | str:
    """The task of a group of maps, or why it is none."""
    if not looked:
        return "no file that can be read"
    channels = {item.values.shape[2] for item in looked}
    real = any(item.storage.kind == "f" for item in looked)
    high = max(float(np.nanmax(item.values)) for item in looked)
    levels = {float(value) for item in looked for value in np.unique(item.values[::3, ::3])[:300]}
    gray = channels == {1} or all(item.is_gray(item.values) for item in looked if item.values.shape[2] == 3)
    if group.told == "normals" or (channels == {3} and not gray and real):
        return _checked(Label("normals", group, remarks=["axes: x right, y up, z to the camera are assumed"]))
    if not gray:
        return "colours; labels need class ids, one number a pixel"
    if group.told == "depth" or (not group.told and (real or high > MOST_CLASSES)):
        return _depth(group, looked, real)
    if group.told == "edge":
        return _checked(Label("edge", group))
    if group.told == "saliency" or len(levels) <= 2:
        return _checked(Label("saliency", group))
    if real or len(levels) > MOST_CLASSES:
        return f"{len(levels)} values up to {high:g}; name the folder after its task, e.g. depth"
    return _classes(group, root)


def _checked(label: Label) -> Label | str:
    """The label with the first encoding that its files allow."""
    task = build_task(label.task)
    problem = ""
    for options in ({}, {"encoding": "mask"}, {"encoding": "shifted"}):
        try:
            decided = decide_files(task, label.group.paths, MapOptions.of(options, task, label.task))
            for path in label.group.paths[:: max(len(label.group.paths) // COUNTED, 1)]:
                decided.read(path)
        except ValueError as error:
            problem = problem or str(error)
            continue
        label.options |= options
        statement = decided.statement()
        label.remarks += [*([statement] if statement else []), *decided.doubts]
        return label
    return problem


def _depth(group: Group, looked: Sequence[Stored], real: bool) -> Label | str:
    values = np.concatenate([item.values[item.values > 0].ravel()[::97] for item in looked])
    if not values.size:
        return "no depth above 0"
    median = float(np.median(values))
    label = Label("depth", group)
    if real and median < 100:
        label.remarks.append(f"real numbers, taken for metres: the median is {median:.2f}")
        return _checked(label)
    fitting = [scale for scale in SCALES if PLAUSIBLE[0] <= median / scale <= PLAUSIBLE[1]]
    scale = fitting[0] if fitting else SCALES[0]
    label.options["scale"] = scale
    label.remarks.append(
        f"scale={scale} units a metre is assumed: it makes the median {median / scale:.2f} m. 0 is no reading"
    )
    bits = {item.storage.bits for item in looked}
    if bits != {16} and not real:
        label.options["bits"] = max(bits)
    return label


def _classes(group: Group, root: Path) -> Label | str:
    """Class ids: which occur, how often, and their names where a list of them lies beside the data."""
    counts: Counter[int] = Counter()
    paths = group.paths
    step = max(len(paths) // COUNTED, 1)
    for path in paths[::step]:
        try:
            found = _counted(read_map(path, palette="ids").values[..., 0])
        except (DecodeError, OSError):
            continue
        for value, count in found.items():
            counts[int(value)] += count
    total = sum(counts.values())
    known = sorted(value for value in counts if value != IGNORE)
    if not known:
        return "no class id besides 255"
    label = Label("semseg", group)
    label.shares = {value: counts[value] / total for value in sorted(counts)}
    names = _class_names(root, len(known))
    if known == list(range(known[-1] + 1)) or len(names) > known[-1]:
        count = max(known[-1] + 1, len(names))
        label.entry["class_names"] = names or count
        label.remarks.append(f"{count} classes; if an id means 'no label': ignore=[id], and one class less")
    else:
        label.entry["class_names"] = names or len(known)
        label.options["ids"] = known
        label.remarks.append(
            f"{len(known)} ids between {known[0]} and {known[-1]} with gaps, each a class of its own; where "
            "they number objects or parts, change ids= so that these share a class"
        )
    if len(paths) > COUNTED:
        label.remarks.append(f"ids were counted in {len(paths[::step])} of {len(paths)} files")
    return label


def _counted(values: NDArray[Any]) -> dict[Any, int]:
    """{value: how often it occurs}, the smallest first."""
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _leave_out_unseen(labels: Sequence[Label]) -> None:
    """An id that lies where depth has no reading, and nowhere else, means "no label"."""
    depth = next((item for item in labels if item.task == "depth"), None)
    classes = next((item for item in labels if item.task == "semseg"), None)
    if depth is None or classes is None:
        return
    seen = {path.stem: path for path in depth.group.paths}
    pairs = [(path, seen[path.stem]) for path in classes.group.paths if path.stem in seen]
    blind: Counter[int] = Counter()
    everywhere: Counter[int] = Counter()
    for path, other in pairs[:: max(len(pairs) // LOOKED, 1)]:
        ids, metres = read_map(path, palette="ids").values[..., 0], read_map(other).values[..., 0]
        if ids.shape == metres.shape:
            everywhere.update(_counted(ids))
            blind.update(_counted(ids[~(metres > 0)]))
    total = sum(blind.values())
    unseen = [key for key, count in blind.items() if count > SAME * total and count > SAME * everywhere[key]]
    if unseen and unseen[0] != IGNORE:
        _without_label(classes, unseen[0])


def _without_label(label: Label, unseen: int) -> None:
    known = [key for key in label.shares if key not in (unseen, IGNORE)]
    label.options |= {"ids": known, "ignore": [unseen]}
    label.entry["class_names"] = len(known)
    label.remarks.insert(0, f"id {unseen} lies where depth has no reading, so it is taken for 'no label'")


def _class_names(root: Path, count: int) -> list[str]:
    """Names in a list beside the data, if it has enough."""
    for name in CLASS_FILES:
        path = root / name
        if path.is_file():
            names = [line.text for line in read_ids(path)]
            if len(names) >= count:
                return names
    return []


def _splits(images: Group) -> dict[str, str | list[str]]:
    """Splits by folders, by the beginning of names, or every fifth image for validation."""
    words = [word for word in images.files if word]
    if len(words) > 1:
        return _by_name((SPLIT_OF[word.lower()], word) for word in words)
    names = sorted(images.names)
    starts = {
        split: word
        for word, split in SPLIT_OF.items()
        if any(name.lower().startswith(word) for name in names)
    }
    covered = [name for name in names if any(name.lower().startswith(word) for word in starts.values())]
    if len(starts) > 1 and len(covered) == len(names):
        return _by_name((split, _start(names, word) + "*") for split, word in starts.items())
    return {
        "train": [name for index, name in enumerate(names) if not validates(index)],
        "val": [name for index, name in enumerate(names) if validates(index)] or names,
    }


def validates(index: int) -> bool:
    """Whether a picture at this place of a set without splits validates."""
    return index % HELD_OUT == 2


def _by_name(found: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """In the order train, val, test; `test` replaces an absent `val`, the first split an absent `train`."""
    splits: dict[str, str | list[str]] = dict(found)
    if "train" not in splits:
        splits["train"] = splits.pop(next(iter(splits)))
    if "val" not in splits and "test" in splits:
        splits["val"] = splits.pop("test")
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}


def _start(names: Sequence[str], word: str) -> str:
    """The word as the names write it."""
    return next(name[: len(word)] for name in names if name.lower().startswith(word))
