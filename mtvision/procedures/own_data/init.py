"""`mtvision.init`: look at data, write a config, a contact sheet and a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtvision.core.files.json_file import read_json
from mtvision.core.files.walk import FOLDER, walk
from mtvision.data.dataset import DenseDataset
from mtvision.procedures.own_data.config_text import coco_config, folder_config, protocol_name
from mtvision.procedures.own_data.groups import SPLIT_OF, find_groups
from mtvision.procedures.own_data.guess import HELD_OUT, Guess, guess, validates
from mtvision.recipe.check import TO_TRAIN, load_checked
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset
from mtvision.recipe.settings import Settings
from mtvision.runtime.atomic import write_text
from mtvision.visualize import sheet, write_picture

SHOWN = 6
"""Samples on the contact sheet."""


@dataclass(frozen=True)
class Written:
    """What `init` wrote.

    Args:
        config: the config.
        sheet: the contact sheet.
        report: what was found and assumed.
        further: lists of ids, or COCO files of the splits.
        summary: the report's lines on splits and labels.
    """

    config: Path
    sheet: Path
    report: Path
    further: list[Path] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)


def init(
    data: str | Path, out: str | Path = ".", *, name: str | None = None, overwrite: bool = False
) -> Written:
    """Write a config for data of your own, with a contact sheet and a report; then `mtvision train` runs.

    Args:
        data: a folder of pictures and label maps, or a COCO file of instances.
        out: folder that receives the files.
        name: of config and protocol; None = from the name of the data.
        overwrite: replace earlier files.

    Raises:
        FileNotFoundError: there is no such folder or file.
        FileExistsError: a file is there already.
        ValueError: there are no pictures, or no labels that can be read; the message lists what was found.
        DecodeError: the COCO file has mistakes.
    """
    source, folder = Path(data).resolve(), Path(out)
    chosen = protocol_name(Path(name or source.name))
    names = [folder / f"{chosen}{ending}" for ending in (".py", "_sheet.png", "_report.md")]
    ending = "json" if source.is_file() else "txt"
    lists = [folder / f"{chosen}_{split}.{ending}" for split in ("train", "val", "test")]
    existing = [str(path) for path in [*names, *lists] if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(f"{', '.join(existing)} exist already. Choose another name, or overwrite them.")
    if source.is_dir():
        text, further, found = _of_folder(source, folder, chosen)
    elif source.is_file():
        text, further, found = _of_coco(source, folder, chosen)
    else:
        raise FileNotFoundError(f"{source}: no such folder or file.")
    write_text(names[0], text)
    config, settings = load_checked(names[0], needs=TO_TRAIN)
    datasets = _datasets(config, settings)
    train = datasets["train"]
    step = max(len(train) // SHOWN, 1)
    samples = [train[index] for index in range(0, len(train), step)[:SHOWN]]
    write_picture(names[1], sheet(samples, settings.protocol.tasks, width=256))
    summary = _summary(datasets)
    write_text(names[2], _report(chosen, source, summary, found, datasets))
    return Written(names[0], names[1], names[2], further, summary)


def _of_folder(root: Path, out: Path, name: str) -> tuple[str, list[Path], list[str]]:
    groups, others = find_groups(root)
    found = guess(root, groups)
    ids, further = _id_lists(found, out, name)
    return folder_config(found, name, ids), further, _found(found, others)


def _id_lists(found: Guess, out: Path, name: str) -> tuple[dict[str, str | Sequence[str] | None], list[Path]]:
    """What the config says about ids of every split; long lists become files."""
    ids: dict[str, str | Sequence[str] | None] = {}
    written = []
    for split, word in found.splits.items():
        if isinstance(word, str):
            ids[split] = [word] if "*" in word else None
            continue
        path = out / f"{name}_{split}.txt"
        write_text(path, "\n".join(word) + "\n")
        ids[split] = str(path.resolve())
        written.append(path)
    return ids, written


def _found(found: Guess, others: Counter[str]) -> list[str]:
    lines = [f"* pictures: {found.images}, most of them {found.size[0]} x {found.size[1]}"]
    for label in found.labels:
        lines.append(f"* {label.task}: {label.group}")
        lines += [f"    * {remark}" for remark in label.remarks]
        shares = ", ".join(f"{key}: {value:.1%}" for key, value in label.shares.items())
        lines += [f"    * share of each id: {shares}"] if shares else []
    lines += [f"* left out: {line}" for line in found.left_out]
    if others:
        endings = ", ".join(f"{count} {ending}" for ending, count in others.most_common(8))
        lines.append(f"* not read: {endings}")
        if others[".mat"]:
            lines.append("    * boundaries of BSDS in .mat: docs/how_to/own_data.md converts them")
    return lines


def _of_coco(file: Path, out: Path, name: str) -> tuple[str, list[Path], list[str]]:
    """A COCO file; a second one of the other split beside it is used, else every fifth picture validates."""
    content = read_json(file)
    pictures, categories = content["images"], [item["name"] for item in content["categories"]]
    images = _folder_of(file, [str(item["file_name"]) for item in pictures[:3]])
    sizes = Counter((int(item["height"]), int(item["width"])) for item in pictures)
    other = _other_split(file)
    train, further = pictures, []
    if other is not None:
        first = read_json(other)["images"][0]["file_name"]
        files = {"train": (str(file), str(images)), "val": (str(other), str(_folder_of(other, [first])))}
    else:
        parts = _by_split(pictures)
        train, files = parts["train"], {}
        for split, chosen in parts.items():
            path = out / f"{name}_{split}.json"
            write_text(path, json.dumps(_part(content, chosen)) + "\n")
            files[split] = (str(path.resolve()), str(images))
            further.append(path)
    size = sizes.most_common(1)[0][0]
    lines = [
        f"* pictures: {images}, {len(pictures)} in {file.name}",
        f"* categories: {', '.join(categories)}",
    ]
    lines += [f"* split: {split} from {path}" for split, (path, _) in files.items()]
    return coco_config(name, categories, files, size, len(sizes), len(train)), further, lines


def _by_split(pictures: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{split: pictures}; of few the last validates too, and a single one does both."""
    if len(pictures) < 2:
        return {"train": list(pictures), "val": list(pictures)}
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for index, item in enumerate(pictures):
        last = len(pictures) < HELD_OUT and index == len(pictures) - 1
        parts["val" if validates(index) or last else "train"].append(item)
    return parts


def _part(content: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same file with some of its images."""
    kept = {item["id"] for item in images}
    annotations = [item for item in content["annotations"] if item["image_id"] in kept]
    return {**content, "images": list(images), "annotations": annotations}


def _other_split(file: Path) -> Path | None:
    """The file of the validation split beside one that is called train."""
    for word in SPLIT_OF:
        if word in file.name and SPLIT_OF[word] == "train":
            for other, split in SPLIT_OF.items():
                path = file.with_name(file.name.replace(word, other))
                if split != "train" and path.is_file():
                    return path
    return None


def _folder_of(file: Path, names: Sequence[str]) -> Path:
    """The folder near a COCO file that holds its images.

    Raises:
        FileNotFoundError: none does.
    """
    for place in (file.parent, file.parent.parent):
        inside = [place / item.path for item in walk(place, depth=2) if item.kind == FOLDER]
        for folder in [place, *inside]:
            if all((folder / name).is_file() for name in names):
                return folder
    raise FileNotFoundError(
        f"{file}: no folder near it holds {names[0]}. Put the file beside the folder of its images."
    )


def _datasets(config: RunConfig, settings: Settings) -> dict[str, DenseDataset]:
    """{split: data set} of all sections, without augmentation."""
    found = {}
    for split in ("train", "val", "test"):
        section = config[f"{split}_data"]
        if section:
            plain = {"dataset": {**section["dataset"], "transforms": "tensor"}}
            found[split] = build_dataset(f"{split}_data", plain, settings.protocol, settings.seed)
    return found


def _summary(datasets: Mapping[str, DenseDataset]) -> list[str]:
    tasks = ", ".join(next(iter(datasets.values())).tasks)
    counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in datasets.items())
    return [f"images: {counts}", f"tasks: {tasks}"]


def _report(
    name: str,
    source: Path,
    summary: Sequence[str],
    found: Sequence[str],
    datasets: Mapping[str, DenseDataset],
) -> str:
    remarks = dict.fromkeys(line for dataset in datasets.values() for line in dataset.remarks())
    lines = [
        f"# {name}",
        "",
        f"What `mtvision init {source}` found. Look at `{name}_sheet.png`, then train:",
        f"`mtvision train {name}.py`.",
        "",
        *[f"* {line}" for line in summary],
        "",
        "## Files and assumptions",
        "",
        *found,
    ]
    if remarks:
        lines += ["", "## Remarks of the reader", "", *[f"* {line}" for line in remarks]]
    return "\n".join(lines) + "\n"
