"""COCO annotations, instances or panoptic, as dense maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE
from mtvision.data.dataset import DenseDataset
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.derive import edges_from_classes
from mtvision.data.transforms import TransformConfig
from mtvision.protocols import Protocol
from mtvision.runtime.foreign import ForeignError, foreign_errors

CROWD = -1
"""Value of crowd regions in `Segments.instances`."""


@dataclass(frozen=True)
class Segments:
    """Annotations of one image as maps.

    Args:
        classes: class ids (H, W) in the protocol's order, 255 = not annotated or crowd.
        instances: int32 (H, W); 0 = nothing, -1 = crowd, k = the k-th entry of `class_of`, counted from 1.
        class_of: class id of each segment.
        annotated: bool (H, W), pixels that some segment covers, crowds included.
    """

    classes: NDArray[np.uint8]
    instances: NDArray[np.int32]
    class_of: tuple[int, ...]
    annotated: NDArray[np.bool_]


def _class_map(segments: Segments) -> NDArray[Any]:
    return segments.classes


def _instance_edges(segments: Segments) -> NDArray[Any]:
    return edges_from_classes(segments.instances)


def _class_edges(segments: Segments) -> NDArray[Any]:
    return edges_from_classes(segments.classes)


def _foreground(segments: Segments) -> NDArray[Any]:
    label = (segments.instances > 0).astype(np.uint8)
    label[segments.instances == CROWD] = IGNORE
    return label


LABELS: dict[str, tuple[str, Callable[[Segments], NDArray[Any]]]] = {
    "classes": ("classes", _class_map),
    "foreground": ("classes", _foreground),
    "instance_edges": ("values", _instance_edges),
    "class_edges": ("values", _class_edges),
}
"""What a task's label can be made of: name -> (kind of label, function of the segments)."""


@DATASETS.register_module()
class CocoDataset(DenseDataset):
    """Images with a COCO `instances` or `panoptic` JSON file.

    Categories become the protocol's classes by name. Segments are painted from the largest to the smallest,
    so that small objects stay visible on large ones. Crowd regions are painted first and count as "no label".

    Args:
        images: folder of the images.
        annotations: JSON file; it is `panoptic` if its annotations have `segments_info`.
        panoptic: folder of the panoptic PNG files; by default the JSON's path without `.json`.
        labels: {task: `classes`, `foreground` (any annotated object), `instance_edges` or `class_edges`}.
        background: class name given to pixels without annotation; None = "no label".
        other: what to do with categories that the protocol has no class for: `refuse`, or `ignore` = no
        label.
        protocol: its class names are category names, see `class_names`.
        split: name of the split.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.

    Raises:
        FileNotFoundError: the JSON file or a folder does not exist.
        DecodeError: the JSON file is not of COCO's structure.
        ValueError: categories and classes do not match, or a task has no label.
        UnknownNameError: an unknown task or kind of label.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        panoptic: str | Path | None = None,
        labels: Mapping[str, str] | None = None,
        background: str | None = None,
        other: str = "refuse",
        protocol: Protocol | None = None,
        split: str = "train",
        transforms: TransformConfig = "tensor",
        seed: int = 0,
        tasks: Sequence[str] | None = None,
    ) -> None:
        chosen = self.choose_protocol(protocol, tasks)
        self._folder, self._annotations = Path(images), Path(annotations)
        if not self._folder.is_dir():
            raise FileNotFoundError(f"{self._folder}: no such folder. Check images=.")
        content = _load(self._annotations)
        self._labels = _label_kinds(self.choose_protocol(protocol, None), chosen, labels)
        names = _class_order(chosen, self._labels, content["categories"], background)
        self._background = None if background is None else names.index(background)
        self._class_of = _match(self._annotations, content["categories"], names, background, other)
        self._records = {record["id"]: record for record in content["images"]}
        self._segments: dict[int, list[dict[str, Any]]] = {number: [] for number in self._records}
        self._pngs: dict[int, Path] = {}
        self._panoptic = any("segments_info" in item for item in content["annotations"])
        folder = Path(panoptic) if panoptic is not None else self._annotations.with_suffix("")
        if self._panoptic and not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder. Give panoptic=, the folder of the PNG files.")
        self._sort_annotations(content["annotations"], folder)
        self._order = list(self._records)
        super().__init__(
            ids=[str(self._records[number]["file_name"]) for number in self._order],
            protocol=chosen,
            split=split,
            transforms=transforms,
            seed=seed,
        )

    @staticmethod
    def class_names(annotations: str | Path) -> tuple[str, ...]:
        """Category names of a file by ascending id: the class names for `own_protocol`."""
        categories = _load(Path(annotations))["categories"]
        return tuple(item["name"] for item in sorted(categories, key=lambda item: int(item["id"])))

    def _sort_annotations(self, annotations: Sequence[Mapping[str, Any]], folder: Path) -> None:
        for item in annotations:
            number = item["image_id"]
            if number not in self._records:
                raise DecodeError(
                    f"{self._annotations}: an annotation belongs to image {number}, which is not listed."
                )
            if self._panoptic:
                self._pngs[number] = folder / item["file_name"]
                self._segments[number] = list(item["segments_info"])
            else:
                self._segments[number].append(dict(item))
            for segment in item["segments_info"] if self._panoptic else [item]:
                if segment["category_id"] not in self._class_of:
                    raise DecodeError(
                        f"{self._annotations}: image {number} has the category {segment['category_id']}, "
                        "which "
                        "'categories' does not list."
                    )

    def segments(self, index: int) -> Segments:
        """Classes and instances of one image, untransformed.

        Raises:
            DecodeError: a segmentation, or the panoptic PNG, does not fit the image.
        """
        number = self._order[index]
        record = self._records[number]
        shape = (int(record["height"]), int(record["width"]))
        masks = self._panoptic_masks(number, shape) if self._panoptic else self._instance_masks(number, shape)
        return self._paint(masks, shape)

    def _instance_masks(
        self, number: int, shape: tuple[int, int]
    ) -> list[tuple[NDArray[np.bool_], int, bool]]:
        masks = []
        for item in self._segments[number]:
            where = f"{self._annotations}: annotation {item.get('id')} of image {number}"
            mask = _decode(where, item.get("segmentation"), shape)
            masks.append((mask, self._class_of[item["category_id"]], bool(item.get("iscrowd", 0))))
        return masks

    def _panoptic_masks(
        self, number: int, shape: tuple[int, int]
    ) -> list[tuple[NDArray[np.bool_], int, bool]]:
        if number not in self._pngs:
            return []
        path = self._pngs[number]
        colours = read_image(path).astype(np.int64)
        ids = colours @ np.array([1, 256, 256**2])
        if ids.shape != shape:
            raise DecodeError(
                f"{path}: {ids.shape[0]}x{ids.shape[1]}, but its image is {shape[0]}x{shape[1]}."
            )
        infos = {int(item["id"]): item for item in self._segments[number]}
        unknown = np.setdiff1d(ids, [0, *infos])
        if unknown.size:
            raise DecodeError(
                f"{path}: segment {int(unknown[0])} is not in segments_info of {self._annotations}."
            )
        return [
            (ids == key, self._class_of[item["category_id"]], bool(item.get("iscrowd", 0)))
            for key, item in infos.items()
        ]

    def _paint(
        self, masks: Sequence[tuple[NDArray[np.bool_], int, bool]], shape: tuple[int, int]
    ) -> Segments:
        blank = IGNORE if self._background is None else self._background
        classes = np.full(shape, blank, dtype=np.uint8)
        instances = np.zeros(shape, dtype=np.int32)
        annotated = np.zeros(shape, dtype=bool)
        order = sorted(range(len(masks)), key=lambda k: (not masks[k][2], -int(masks[k][0].sum()), k))
        class_of: list[int] = []
        for k in order:
            mask, number, crowd = masks[k]
            annotated |= mask
            if crowd:
                classes[mask], instances[mask] = IGNORE, CROWD
                continue
            class_of.append(number)
            classes[mask], instances[mask] = number, len(class_of)
        return Segments(classes, instances, tuple(class_of), annotated)

    def read(self, index: int) -> RawSample:
        """Decode one image and make its labels."""
        image = read_image(self._folder / self.ids[index])
        size = image.shape[:2]
        segments = self.segments(index)
        labels = {name: LABELS[self._labels[name]][1](segments) for name in self.tasks}
        return RawSample(
            image=image,
            labels=labels,
            tasks=self.tasks,
            meta=Meta(id=self.ids[index], size=size, original_size=size),
        )

    def source(self, index: int, task: str | None = None) -> str:
        """The image file, or the annotation file and image of a label."""
        if task is None:
            return str(self._folder / self.ids[index])
        return f"{self._annotations}, image '{self.ids[index]}'"

    def files(self) -> dict[str, Path]:
        """Annotation file, images and panoptic files."""
        entries = {"annotations": self._annotations}
        entries.update({f"image/{name}": self._folder / name for name in self.ids})
        entries.update({f"panoptic/{path.name}": path for path in self._pngs.values()})
        return entries

    def parameters(self) -> Mapping[str, Any]:
        """Options that change the labels."""
        return {"labels": dict(self._labels), "background": self._background}


def _decode(where: str, segmentation: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (H, W) of a list of polygons or of an RLE, compressed or not."""
    try:
        with foreign_errors():  # pycocotools raises Exception itself
            encoded = segmentation
            if isinstance(encoded, list):
                encoded = rle.merge(rle.frPyObjects(encoded, *shape))
            size = tuple(int(side) for side in encoded["size"])
            if size == shape:
                if isinstance(encoded["counts"], list):
                    encoded = rle.frPyObjects(encoded, *shape)
                return np.asarray(rle.decode([encoded])[..., 0], dtype=bool)
    except ForeignError as error:
        raise DecodeError(
            f"{where} has no readable 'segmentation' ({error}). Expected polygons of at least three points, "
            "or RLE."
        ) from None
    raise DecodeError(f"{where} is {size[0]}x{size[1]}, its image {shape[0]}x{shape[1]} (height x width).")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file. Check annotations=.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"{path}: not a complete JSON file ({error}). Copy it again.") from None
    lacking = [key for key in ("images", "annotations", "categories") if key not in content]
    if not isinstance(content, dict) or lacking:
        raise DecodeError(
            f"{path}: expected a COCO instances or panoptic file; it has no "
            f"{', '.join(map(repr, lacking)) or 'dict'}."
        )
    _require_keys(path, "images", content["images"], ("id", "file_name", "height", "width"))
    _require_keys(path, "categories", content["categories"], ("id", "name"))
    wanted = (
        ("image_id", "file_name", "segments_info") if _is_panoptic(content) else ("image_id", "category_id")
    )
    _require_keys(path, "annotations", content["annotations"], wanted)
    return content


def _is_panoptic(content: Mapping[str, Any]) -> bool:
    return any("segments_info" in item for item in content["annotations"])


def _require_keys(path: Path, what: str, items: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    for position, item in enumerate(items):
        for key in keys:
            if key not in item:
                raise DecodeError(f"{path}: {what}[{position}] has no '{key}'.")


def _label_kinds(full: Protocol, chosen: Protocol, labels: Mapping[str, str] | None) -> dict[str, str]:
    """{task: kind of label} of the chosen tasks; a single class map by default."""
    given = dict(labels) if labels is not None else {"semseg": "classes"}
    for name, kind in given.items():
        task = look_up(f"task of protocol {full.id}", name, full.known_tasks)
        label, _ = look_up(f"label of the task '{name}'", kind, LABELS)
        if label != task.label or (kind == "foreground" and task.num_classes != 2):
            raise ValueError(f"CocoDataset: '{kind}' is no label for the task '{name}'.")
    lacking = [name for name in chosen.task_names if name not in given]
    if lacking:
        raise ValueError(
            f"CocoDataset: no label for the task {', '.join(lacking)}; say what it is made of with "
            f"labels={{...}} "
            f"({', '.join(LABELS)}), or restrict the data set with tasks=[...]."
        )
    return {name: given[name] for name in chosen.task_names}


def _class_order(
    protocol: Protocol,
    kinds: Mapping[str, str],
    categories: Sequence[Mapping[str, Any]],
    background: str | None,
) -> tuple[str, ...]:
    """Class names of the task that is a class map; the file's own where there is none."""
    for name, kind in kinds.items():
        if kind == "classes":
            names = protocol.task(name).class_names
            if background is not None and background not in names:
                raise UnknownNameError("background class", background, names)
            return names
    own = tuple(str(item["name"]) for item in sorted(categories, key=lambda item: int(item["id"])))
    return own if background is None or background in own else (background, *own)


def _match(
    path: Path,
    categories: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    background: str | None,
    other: str,
) -> dict[int, int]:
    """{category id: class id} by name."""
    look_up("value of other=", other, {"refuse": 0, "ignore": 0})
    found = {str(item["name"]) for item in categories}
    absent = [name for name in names if name not in found and name != background]
    surplus = sorted(found - set(names))
    if absent or (surplus and other == "refuse"):
        raise ValueError(
            f"{path}: categories and classes differ. Classes without category: {absent[:5]}; categories "
            "without "
            f"class: {surplus[:5]}. Take the names from CocoDataset.class_names(path)"
            + (", or set other='ignore'." if surplus and not absent else ".")
        )
    return {item["id"]: names.index(item["name"]) if item["name"] in names else IGNORE for item in categories}
