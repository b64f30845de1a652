"""The NumPy sets that were distributed with MTAN: NYUv2 with 13 classes, Cityscapes with 7 or 19."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.find import FoundFiles, find_files
from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.core.values import Count
from mtvision.data.decode import DecodeError
from mtvision.data.maps.files import read_npy
from mtvision.data.published import (
    MissingLabels,
    PublishedDataset,
    Transforms,
    class_map,
    require_root,
    value_map,
)
from mtvision.protocols import Protocol
from mtvision.protocols.mtan import NYUV2_MTAN


@DATASETS.register_module()
class MtanNpy(PublishedDataset):
    """`{train,val}/{image,label,depth,normal}/<i>.npy` as MTAN, LibMTL, Nash-MTL and FAMO read it.

    Labels: `semseg`, 255 = none (-1 on disk). `depth` in metres (NYUv2) or inverse depth of unknown scale
    (Cityscapes), NaN = none. `normals`, NaN = none. Depth and normals are missing where **the sum over
    channels is 0**, the published rule, which drops a valid normal whose components cancel.

    Args:
        root: folder with `train/` and `val/`.
        split: `train` or `val`.
        protocol: `nyuv2-mtan` if not given; `cityscapes-mtan-7` and `cityscapes-mtan-19` fit too.
        labels: folder of the class maps; None = `label_<number of classes>` if it exists, else `label`.
        zoom_fix: multiply inverse depth by the zoom factor, as geometry has it, instead of dividing (FAMO's
            code). Only for the Cityscapes protocols.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.
        check: refuse another number of images than published.
        missing_labels: `refuse` or `absent`.
        cache: folder of decoded samples, see `PublishedDataset`.

    Raises:
        FileNotFoundError: the folder, an image or a label is missing.
        ValueError: another number of images than published, or `zoom_fix` for depth in metres.
        UnknownNameError: unknown split or task.
    """

    default_protocol: ClassVar[Protocol] = NYUV2_MTAN
    page: ClassVar[str] = "datasets/mtan_npy.md"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        protocol: Protocol | None = None,
        labels: str | None = None,
        zoom_fix: bool = False,
        transforms: Transforms = "tensor",
        seed: Count = 0,
        tasks: Sequence[str] | None = None,
        check: bool = True,
        missing_labels: MissingLabels = "refuse",
        cache: str | Path | None = None,
    ) -> None:
        root = Path(root)
        require_root(
            root,
            "  {train,val}/{image,label,depth,normal}/<number>.npy",
            "unpacking MTAN's archive",
            self.page,
        )
        look_up("split of MtanNpy", split, {"train": None, "val": None})
        protocol = protocol or self.default_protocol
        self.zoom_fix = zoom_fix
        classes = protocol.task("semseg").num_classes if "semseg" in protocol.task_names else 0
        numbered = f"label_{classes}"
        self.label_folder = labels or (numbered if (root / split / numbered).is_dir() else "label")
        images = find_files(root / split / "image", (".npy",), depth=0)
        super().__init__(
            root=root,
            ids=_numbers(images),
            protocol=_with_zoom_fix(protocol) if zoom_fix else protocol,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
            check=check,
            missing_labels=missing_labels,
            cache=cache,
            remarks=[images.summary()],
        )

    def image_path(self, name: str) -> Path:
        """The image file of one id."""
        return self.root / self.split / "image" / f"{name}.npy"

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """The one file that a label of one id is made from."""
        folders = {"semseg": self.label_folder, "depth": "depth", "normals": "normal"}
        return (self.root / self.split / look_up("task of MtanNpy", task, folders) / f"{name}.npy",)

    def decode(self, index: int) -> RawSample:
        """Decode one image and its labels."""
        name = self.ids[index]
        image = self._image(self.image_path(name))
        labels: dict[str, NDArray[Any]] = {}
        for task in self.wanted(name):
            path = self.label_paths(name, task)[0]
            if task == "semseg":
                labels[task] = self._classes(path)
            else:
                labels[task] = _masked(path, channels=self.tasks[task].label_channels, what=task)
        return self.decoded(name, image, labels)

    def _image(self, path: Path) -> NDArray[np.float32]:
        image = value_map(path, read_npy(path), channels=3, what="an image")
        if not -1e-3 <= image.min() <= image.max() <= 1.001:
            raise DecodeError(
                f"{path}: the image runs from {image.min():g} to {image.max():g}, expected 0..1. Is it "
                "the set that was distributed with MTAN, or one that another script packed?"
            )
        return image * np.float32(255)

    def _classes(self, path: Path) -> NDArray[np.int64]:
        label = read_npy(path)
        if label.min() < -1:
            raise DecodeError(f"{path}: holds the id {label.min():g}, expected -1 (none) and 0 upwards.")
        return class_map(path, label, shift=0, count=self.tasks["semseg"].num_classes)

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content besides the files."""
        return {"dataset": "MtanNpy", "labels": self.label_folder, "zoom_fix": self.zoom_fix}


def _numbers(images: FoundFiles) -> list[str]:
    for name, path in images.files.items():
        if not name.isascii() or not name.isdigit() or str(int(name)) != name:
            raise ValueError(
                f"{path}: expected a number as the name, as 0.npy. MTAN's set holds nothing else; move the "
                "file away."
            )
    return sorted(images.files, key=int)


def _masked(path: Path, *, channels: int, what: str) -> NDArray[np.float32]:
    stored = value_map(path, read_npy(path), channels=channels, what=what)
    valid = stored.sum(axis=2, keepdims=True) != 0
    return np.where(valid, stored, np.float32(np.nan))


def _with_zoom_fix(protocol: Protocol) -> Protocol:
    if protocol.task("depth").unit == "m":
        raise ValueError(
            f"MtanNpy: zoom_fix is for inverse depth; protocol '{protocol.id}' has depth in metres, "
            "which is divided by the zoom factor rightly. Leave zoom_fix out."
        )
    tasks = tuple(
        replace(task, geometry="disparity") if task.name == "depth" else task for task in protocol.tasks
    )
    return replace(protocol, tasks=tasks)
