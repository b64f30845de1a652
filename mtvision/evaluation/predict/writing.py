"""Predictions as files: archives, arrays, PNG of 16 bits and COCO."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.arrays import write_npz
from mtvision.core.instances import BASE
from mtvision.core.task import Task
from mtvision.evaluation.predict.outputs import Places
from mtvision.evaluation.predict.statistics import class_name
from mtvision.runtime.atomic import atomic_file, write_bytes, write_text
from mtvision.visualize import panel, write_picture
from mtvision.visualize.overlays import overlay

PROBABILITIES = ("sigmoid", "foreground")
TOP = 65535
PER_UNIT = {"m": 1000, "px": 256}
"""{unit: steps of a 16-bit PNG}; 0 is kept for pixels without a value."""


def write_image(
    places: Places,
    kinds: Sequence[str],
    name: str,
    image: NDArray[np.uint8],
    prediction: Mapping[str, NDArray[Any]],
) -> Iterator[Path]:
    """Write everything that is asked for of one image; yields each file that is written.

    Raises:
        OSError: a file cannot be written.
        ValueError: a value that 16 bits cannot hold.
    """
    if "panel" in kinds:
        path = places.panel(name, ".png")
        write_picture(path, panel(image, prediction, places.tasks))
        yield path
    if "overlay" in kinds:
        for task in places.tasks:
            path = places.overlay(name, task, ".png")
            write_picture(path, overlay(image, task, prediction[task.name]))
            yield path
    yield from write_maps(places, kinds, name, prediction)


def save_maps(path: Path, prediction: Mapping[str, NDArray[Any]]) -> None:
    """Write all maps of an image as one archive of NumPy.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_file(path) as file:
        write_npz(file, prediction)


def write_maps(
    places: Places, kinds: Sequence[str], name: str, prediction: Mapping[str, NDArray[Any]]
) -> Iterator[Path]:
    """Write the kinds that hold raw values; arguments and errors as `write_image`."""
    if "npz" in kinds:
        path = places.maps(name)
        save_maps(path, prediction)
        yield path
    for task in places.tasks:
        values = prediction[task.name]
        encoded = as_png(task, values) if "png" in kinds else None
        if encoded is not None:
            path = places.map(name, task, ".png")
            write_bytes(path, cv2.imencode(".png", encoded)[1].tobytes())
            yield path
        if "npy" in kinds or ("png" in kinds and encoded is None):
            path = places.map(name, task, ".npy")
            with atomic_file(path) as file:
                np.save(file, values, allow_pickle=False)
            yield path


def as_png(task: Task, values: NDArray[Any]) -> NDArray[Any] | None:
    """A map as pixels of a PNG.

    Returns:
        Class ids as they are, instance ids in 16 bits. Probabilities: 65535 p. Three components in -1..1:
        65535 (n + 1) / 2, as red, green, blue (here in OpenCV's order). One channel of at least 0 in metres:
        millimetres; in pixels: 256 steps each. None for anything else, which 16 bits do not hold.

    Raises:
        ValueError: a distance beyond the range of 16 bits.
    """
    encoded: NDArray[Any] | None = None
    if task.label == "instances":
        encoded = np.nan_to_num(values[0])
    elif values.dtype.kind in "iu":
        return values
    elif task.activation in PROBABILITIES and values.shape[0] == 1:
        encoded = np.clip(values[0], 0, 1) * TOP
    elif task.geometry == "direction" and values.shape[0] == 3:
        encoded = np.clip((values[::-1].transpose(1, 2, 0) + 1) / 2, 0, 1) * TOP
    elif task.activation == "positive" and values.shape[0] == 1 and task.unit in PER_UNIT:
        encoded = np.nan_to_num(values[0].astype(np.float64) * PER_UNIT[task.unit])
    if encoded is None:
        return None
    rounded: NDArray[Any] = np.round(encoded)
    if rounded.max() > TOP:
        raise ValueError(
            f"{task.name} reaches {values.max():g} {task.unit}, and 16 bits hold "
            f"{TOP / PER_UNIT.get(task.unit, 1):g}. Use --save npy."
        )
    return np.ascontiguousarray(rounded.astype(np.uint16))


class CocoFiles:
    """Collects masks of all images and writes one COCO file a task with classes.

    Args:
        tasks: those without class ids or instances are left out.

    Raises:
        ValueError: no task has classes or instances.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = [task for task in tasks if task.label == "instances" or task.activation == "argmax"]
        if not self.tasks:
            raise ValueError(
                "--save coco needs a task with classes or instances; the tasks are "
                f"{', '.join(task.name for task in tasks)}."
            )
        self._images: list[dict[str, Any]] = []
        self._annotations: dict[str, list[dict[str, Any]]] = {task.name: [] for task in self.tasks}

    def add(self, file: str, prediction: Mapping[str, NDArray[Any]]) -> None:
        """Add an image; `file` becomes its `file_name`."""
        height, width = prediction[self.tasks[0].name].shape[-2:]
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": file, "height": height, "width": width})
        for task in self.tasks:
            annotations = self._annotations[task.name]
            for entry in _masks(task, prediction[task.name]):
                annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})

    def write(self, places: Places) -> list[Path]:
        """Write the files; none if there was no image."""
        written = [places.coco(task) for task in self.tasks] if self._images else []
        for task, path in zip(self.tasks, written, strict=False):
            names = range(len(task.class_names) or task.num_classes)
            content = {
                "images": self._images,
                "annotations": self._annotations[task.name],
                "categories": [{"id": index + 1, "name": class_name(task, index)} for index in names],
            }
            write_text(path, json.dumps(content) + "\n")
        return written


def _masks(task: Task, values: NDArray[Any]) -> list[dict[str, Any]]:
    """Category (from 1), run lengths, area, box and, of instances, score of every class or instance."""
    from pycocotools import mask as coco

    instances = task.label == "instances"
    ids = np.nan_to_num(values[0]).astype(np.int64) if instances else values
    entries = []
    for item in np.unique(ids).tolist():
        if instances and item < BASE:
            continue
        mask = ids == item
        runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
        entry: dict[str, Any] = {
            "category_id": item // BASE if instances else item + 1,
            "segmentation": {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()},
            "area": int(mask.sum()),
            "bbox": [float(side) for side in coco.toBbox(runs)],
            "iscrowd": 0,
        }
        if instances:
            entry["score"] = round(float(values[1][mask].mean()), 6)
        entries.append(entry)
    return entries
