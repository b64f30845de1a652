"""PASCAL-Context with the five tasks of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.core.values import Count
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.derive import edges_from_classes
from mtvision.data.maps.fixed import read_gray, read_label_png, read_normals_png
from mtvision.data.pascal_context.labels import (
    human_parts_from_objects,
    normals_mask,
    read_label_map,
    read_objects,
)
from mtvision.data.pascal_context.persons import images_with_person
from mtvision.data.published import (
    MissingLabels,
    PublishedDataset,
    Transforms,
    class_map,
    read_split,
    require_root,
)
from mtvision.protocols import Protocol
from mtvision.protocols.pascal_context import PASCAL_CLASSES, PASCAL_INVPT
from mtvision.protocols.tasks import HUMAN_PARTS

MAX_SIDE = 512
"""Evaluation pads to this; photographs of PASCAL VOC have at most 500 pixels a side."""

DISTILLED = {"normals": "normals_distill", "saliency": "sal_distill"}


@DATASETS.register_module()
class PascalContext(PublishedDataset):
    """PASCAL-Context: 4998 + 5105 photographs with 21 classes, parts of persons, saliency, normals and edges.

    Labels: `semseg` 0 (background) to 20, 255 = none. `human_parts` 0..6, 255 throughout on an image without
    an annotated part. `saliency` 0/1 and `normals` (x, y, z) are distilled from networks; normals are NaN
    where PASCAL-Context has none of the 170 classes that the network knew. `edge` 0/1: thinned boundaries of
    the 459 classes.

    Trained on `human_parts` alone, the set consists of the images that show a person, as in the published
    code.

    Args:
        root: folder with `JPEGImages/`, `ImageSets/Context/`, `semseg/`, `pascal-context/`, `human_parts/`,
            `normals_distill/`, `sal_distill/`.
        split: `train` or `val`.
        protocol: `pascal-invpt` if not given.
        derived: `auto` reads edges and parts from `edge/` and `human_parts_png/` where
            `tools/prepare_dataset.py --precompute` wrote them; `compute` never does. The labels are the same.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks; files of others need not exist.
        check: refuse other counts than published, and pictures larger than 512 pixels.
        missing_labels: `refuse` or `absent`.
        cache: folder of decoded samples, see `PublishedDataset`.

    Raises:
        FileNotFoundError: the folder, a list, an image or a label is missing.
        ValueError: another number of images than published.
        UnknownNameError: unknown split, task or value of `derived`.
    """

    default_protocol: ClassVar[Protocol] = PASCAL_INVPT
    page: ClassVar[str] = "datasets/pascal_context.md"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        protocol: Protocol | None = None,
        derived: Literal["auto", "compute"] = "auto",
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
            "  JPEGImages/*.jpg  ImageSets/Context/{train,val}.txt  semseg/{VOC12,pascal-context}/  "
            "pascal-context/trainval/*.mat\n  human_parts/*.mat  normals_distill/  sal_distill/",
            "tools/prepare_dataset.py pascal_context SRC DST",
            self.page,
        )
        look_up("split of PascalContext", split, {"train": None, "val": None})
        self._precomputed = look_up("derived", derived, {"auto": True, "compute": False})
        ids = read_split(root / "ImageSets" / "Context" / f"{split}.txt", root / "JPEGImages", (".jpg",))
        protocol = self.choose_protocol(protocol, tasks)
        only_persons = protocol.task_names == ("human_parts",)
        expected = protocol.splits.get(split)
        if only_persons and not (check and expected is not None and len(ids) != expected):
            ids = images_with_person(root, split, ids)
            protocol = _without_count(protocol)  # the full list was counted; the rest has no published number
        super().__init__(
            root=root,
            ids=ids,
            protocol=protocol,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=None,
            check=check,
            missing_labels=missing_labels,
            cache=cache,
        )

    def image_path(self, name: str) -> Path:
        """The image file of one id."""
        return self.root / "JPEGImages" / f"{name}.jpg"

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """Files that a label of one id is made from."""
        distilled = {kind: self.root / folder / f"{name}.png" for kind, folder in DISTILLED.items()}
        parts = self._derived("human_parts_png", name) or self.root / "human_parts" / f"{name}.mat"
        paths = {
            "semseg": (self._semseg_path(name),),
            "human_parts": (parts,),
            "saliency": (distilled["saliency"],),
            "normals": (distilled["normals"], self._context_path(name)),
            "edge": (self._derived("edge", name) or self._context_path(name),),
        }
        return look_up("task of PascalContext", task, paths)

    def hint(self, task: str) -> str:
        """Says why distilled labels are missing: one known copy and the raw releases do not have them."""
        if task not in DISTILLED:
            return ""
        return (
            f"{DISTILLED[task]}/ is in the original PASCALContext.tar.gz only: it cannot be derived "
            "from the raw releases, and a copy without it circulates. "
        )

    def decode(self, index: int) -> RawSample:
        """Decode one photograph and its labels."""
        name = self.ids[index]
        image = read_image(self.image_path(name))
        size = (int(image.shape[0]), int(image.shape[1]))
        if self.check and max(size) > MAX_SIDE:
            raise DecodeError(
                f"{self.source(index)}: the picture is {size[0]}x{size[1]} (height x width), PASCAL VOC has "
                "at most 500 pixels a side. Take JPEGImages of PASCAL VOC2010, not a resized copy."
            )
        labels = {task: self._label(task, name, size) for task in self.wanted(name)}
        return self.decoded(name, image, labels)

    def boundary_segmentation(self, index: int) -> NDArray[Any]:
        """The 459-class map (H, W), whose regions' borders are the ground truth of the published odsF.

        The training label is another one: a Laplacian of the same map, thinned.
        """
        return read_label_map(self._context_path(self.ids[index]))

    def _label(self, task: str, name: str, size: tuple[int, int]) -> NDArray[Any]:
        path = self.label_paths(name, task)[0]
        if task == "semseg":
            return class_map(path, read_label_png(path), shift=0, count=len(PASCAL_CLASSES))
        if task == "human_parts":
            if path.suffix == ".png":
                return class_map(path, read_label_png(path), shift=0, count=len(HUMAN_PARTS))
            return human_parts_from_objects(read_objects(path), size, path)
        if task == "saliency":
            gray = read_gray(path)
            if gray.dtype != np.uint8:
                raise DecodeError(f"{path}: expected an 8-bit saliency map, got {gray.dtype}.")
            return (gray / np.float32(255) > 0.5).astype(np.uint8)
        if task == "edge":
            if path.suffix == ".png":
                return np.asarray(read_gray(path)[..., None] / np.float32(255), dtype=np.float32)
            return edges_from_classes(read_label_map(path))
        normals = read_normals_png(path)
        mask = normals_mask(read_label_map(self._context_path(name)))
        if mask.shape != normals.shape[:2]:
            raise DecodeError(
                f"{path}: the normals are {normals.shape[0]}x{normals.shape[1]} but the classes that "
                f"mask them ({self._context_path(name)}) {mask.shape[0]}x{mask.shape[1]}. One of the "
                "two was resized; take both from one archive."
            )
        return np.where(mask[..., None], normals, np.float32(np.nan))

    def _semseg_path(self, name: str) -> Path:
        preferred = self.root / "semseg" / "VOC12" / f"{name}.png"
        return preferred if preferred.is_file() else self.root / "semseg" / "pascal-context" / f"{name}.png"

    def _context_path(self, name: str) -> Path:
        return self.root / "pascal-context" / "trainval" / f"{name}.mat"

    def _derived(self, folder: str, name: str) -> Path | None:
        path = self.root / folder / f"{name}.png"
        return path if self._precomputed and path.is_file() else None

    def usual_classes(self) -> Mapping[str, Mapping[int, float]]:
        """Background, which other class sets of these images have not."""
        return {"semseg": {0: 0.05}}

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content besides the files."""
        return {"dataset": "PascalContext"}


def _without_count(protocol: Protocol) -> Protocol:
    return replace(protocol, splits={})
