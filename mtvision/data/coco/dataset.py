"""COCO annotations, instances or panoptic, as dense maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.names import stored
from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE
from mtvision.core.values import Count
from mtvision.data.coco.checks import read_categories, read_coco
from mtvision.data.coco.fields import is_number
from mtvision.data.coco.masks import mask_of
from mtvision.data.coco.records import Limits, Picture
from mtvision.data.dataset import DenseDataset
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.derive import edges_from_classes
from mtvision.data.maps.photographs import PhotographDepth
from mtvision.data.transforms import TransformConfig
from mtvision.protocols import Protocol

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
        empty: how many annotations cover no pixel; each also has a `class_of` if it is no crowd.
    """

    classes: NDArray[np.uint8]
    instances: NDArray[np.int32]
    class_of: tuple[int, ...]
    annotated: NDArray[np.bool_]
    empty: int = 0


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
    The whole JSON file is checked when the data set is made, see `datasets/own_data.md`.

    Args:
        images: folder of the images.
        annotations: JSON file, also gzipped; it is `panoptic` if its annotations have `segments_info`.
        panoptic: folder of the panoptic PNG files; by default the JSON's path without its endings.
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
        DecodeError: the JSON file has mistakes.
        ValueError: categories and classes do not match, a task has no label, or a limit is no number.
        UnknownNameError: an unknown task, kind of label, policy or limit.
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
        mistakes: str = "error",
        limits: Mapping[str, float] | None = None,
        protocol: Protocol | None = None,
        split: str = "train",
        transforms: TransformConfig = "tensor",
        seed: Count = 0,
        tasks: Sequence[str] | None = None,
    ) -> None:
        chosen = self.choose_protocol(protocol, tasks)
        self._folder, self._annotations = Path(images), Path(annotations)
        if not self._folder.is_dir():
            raise FileNotFoundError(f"{self._folder}: no such folder. Check images=.")
        folder = Path(panoptic) if panoptic is not None else _without_endings(self._annotations)
        content = read_coco(self._annotations, self._folder, folder, policy=mistakes, limits=_limits(limits))
        self._labels = _label_kinds(self.choose_protocol(protocol, None), chosen, labels)
        names = _class_order(chosen, self._labels, tuple(content.categories.values()), background)
        self._background = None if background is None else names.index(background)
        self._class_of = _match(self._annotations, content.categories, names, background, other)
        self._panoptic = folder if content.panoptic else None
        self._pictures, self._remarks = content.pictures, content.remarks
        self._photographs = PhotographDepth.of(
            [stored(self._folder / picture.file_name) for picture in self._pictures]
        )
        super().__init__(
            ids=[picture.file_name for picture in self._pictures],
            protocol=chosen,
            split=split,
            transforms=transforms,
            seed=seed,
        )

    @staticmethod
    def class_names(annotations: str | Path) -> tuple[str, ...]:
        """Category names of a file by ascending id: the class names for `own_protocol`."""
        return tuple(read_categories(Path(annotations)).values())

    def segments(self, index: int) -> Segments:
        """Classes and instances of one image, untransformed.

        Raises:
            FileNotFoundError: the panoptic PNG is gone.
            DecodeError: the panoptic PNG does not fit the image.
        """
        picture = self._pictures[index]
        if self._panoptic is not None:
            return self._paint(self._panoptic_masks(picture, self._panoptic), picture.shape)
        masks = [
            (mask_of(region.segmentation, picture.shape), self._class_of[region.category], region.crowd)
            for region in picture.regions
        ]
        return self._paint(masks, picture.shape)

    def _panoptic_masks(self, picture: Picture, folder: Path) -> list[tuple[NDArray[np.bool_], int, bool]]:
        if picture.png is None:
            return []
        path = stored(folder / picture.png)
        colours = read_image(path).astype(np.int64)
        ids = colours @ np.array([1, 256, 256**2])
        height, width = picture.shape
        if ids.shape != picture.shape:
            raise DecodeError(
                f"{path}: {ids.shape[0]}x{ids.shape[1]}, but its image is {height}x{width} in "
                f"{self._annotations} (height x width). Take both from one release."
            )
        if picture.regions and not ids.any():
            raise DecodeError(
                f"{path}: holds no segment, expected some of the {len(picture.regions)} that "
                f"{self._annotations} lists. Store ids as red + 256 green + 256² blue of 8 bits each."
            )
        unknown = np.setdiff1d(ids, [0, *(region.number for region in picture.regions)])
        if unknown.size:
            raise DecodeError(
                f"{path}: segment {int(unknown[0])} is not in segments_info of {self._annotations}. "
                "Take both from one release."
            )
        return [
            (ids == region.number, self._class_of[region.category], region.crowd)
            for region in picture.regions
        ]

    def _paint(
        self, masks: Sequence[tuple[NDArray[np.bool_], int, bool]], shape: tuple[int, int]
    ) -> Segments:
        blank = IGNORE if self._background is None else self._background
        classes = np.full(shape, blank, dtype=np.uint8)
        instances = np.zeros(shape, dtype=np.int32)
        annotated = np.zeros(shape, dtype=bool)
        sizes = [int(mask.sum()) for mask, _, _ in masks]
        order = sorted(range(len(masks)), key=lambda k: (not masks[k][2], -sizes[k], k))
        class_of: list[int] = []
        for k in order:
            mask, number, crowd = masks[k]
            annotated |= mask
            if crowd:
                classes[mask], instances[mask] = IGNORE, CROWD
                continue
            class_of.append(number)
            classes[mask], instances[mask] = number, len(class_of)
        return Segments(classes, instances, tuple(class_of), annotated, sizes.count(0))

    def read(self, index: int) -> RawSample:
        """Decode one image and make its labels."""
        path = stored(self._folder / self.ids[index])
        image = read_image(path) if self._photographs is None else self._photographs.read(path)
        size = image.shape[:2]
        segments = self.segments(index)
        labels = {name: LABELS[self._labels[name]][1](segments) for name in self.tasks}
        return RawSample(
            image=image,
            labels=labels,
            tasks=self.tasks,
            meta=Meta(
                id=self.ids[index],
                size=size,
                original_size=size,
                extra={"objects_without_pixel": segments.empty} if segments.empty else {},
            ),
        )

    def source(self, index: int, task: str | None = None) -> str:
        """The image file, or the annotation file and image of a label."""
        if task is None:
            return str(stored(self._folder / self.ids[index]))
        return f"{self._annotations}, image '{self.ids[index]}'"

    def files(self) -> dict[str, Path]:
        """Annotation file, images and panoptic files."""
        entries = {"annotations": self._annotations}
        entries.update({f"image/{name}": stored(self._folder / name) for name in self.ids})
        if self._panoptic is not None:
            names = [picture.png for picture in self._pictures if picture.png is not None]
            entries.update({f"panoptic/{name}": stored(self._panoptic / name) for name in names})
        return entries

    def remarks(self) -> tuple[str, ...]:
        """What `mistakes="skip"` left out, and oddities of the JSON file."""
        return self._remarks

    def parameters(self) -> Mapping[str, Any]:
        """Options that change the labels, and how photographs of 16 bits are read."""
        deep = {} if self._photographs is None else {"images": self._photographs.statement()}
        return {"labels": dict(self._labels), "background": self._background, **deep}


def _without_endings(path: Path) -> Path:
    """`panoptic.json` and `panoptic.json.gz` without their endings."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).with_suffix("")


def _limits(changes: Mapping[str, float] | None) -> Limits:
    known = {field.name: field for field in fields(Limits)}
    for name, value in (changes or {}).items():
        look_up("limit", name, known)
        if not is_number(value) or value < 0:
            raise ValueError(f"CocoDataset: limits['{name}'] is {value!r}; expected a number, 0 or more.")
    return Limits(**(changes or {}))


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
    categories: tuple[str, ...],
    background: str | None,
) -> tuple[str, ...]:
    """Class names of the task that is a class map; the file's own where there is none."""
    for name, kind in kinds.items():
        if kind == "classes":
            names = protocol.task(name).class_names
            if background is not None and background not in names:
                raise UnknownNameError("background class", background, names)
            return names
    return categories if background is None or background in categories else (background, *categories)


def _match(
    path: Path,
    categories: Mapping[int, str],
    names: Sequence[str],
    background: str | None,
    other: str,
) -> dict[int, int]:
    """{category id: class id} by name."""
    look_up("value of other=", other, {"refuse": 0, "ignore": 0})
    found = set(categories.values())
    absent = [name for name in names if name not in found and name != background]
    surplus = sorted(found - set(names))
    if absent or (surplus and other == "refuse"):
        raise ValueError(
            f"{path}: categories and classes differ. Classes without category: {absent[:5]}; categories "
            "without "
            f"class: {surplus[:5]}. Take the names from CocoDataset.class_names(path)"
            + (", or set other='ignore'." if surplus and not absent else ".")
        )
    if len(names) > IGNORE:
        raise ValueError(
            f"{path}: {len(names)} classes; class maps of 8 bits hold {IGNORE}, and {IGNORE} is 'no "
            "label'. Give the protocol fewer classes, and set other='ignore'."
        )
    return {number: names.index(name) if name in names else IGNORE for number, name in categories.items()}
