"""NYUD-v2 in the two packagings that papers use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.core.values import Count
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.maps.files import read_npy
from mtvision.data.maps.fixed import read_gray, read_label_png, read_normals_png
from mtvision.data.published import (
    MissingLabels,
    PublishedDataset,
    Transforms,
    class_map,
    read_split,
    require_root,
    value_map,
)
from mtvision.protocols import Protocol
from mtvision.protocols.nyudv2 import NYUD_CLASSES, NYUD_INVPT, NYUD_SURVEY

MAX_DEPTH = 50.0
"""Metres no indoor reading reaches: the sensor ends at 10, so more means another unit."""


def read_semseg(path: Path) -> NDArray[Any]:
    """Class ids 0..39 from 1..40 on disk; 0 on disk is no label (255)."""
    return class_map(path, read_label_png(path), shift=1, count=len(NYUD_CLASSES))


def read_depth(path: Path) -> NDArray[np.float32]:
    """Metres, 0 on disk is no reading (NaN).

    Raises:
        DecodeError: not a floating-point map, or not in metres.
    """
    depth = value_map(path, read_npy(path), channels=1, what="depth in metres")
    if 0 < depth.min() <= depth.max() < MAX_DEPTH:  # dense, as the published frames are; false for NaN
        return depth
    valid = np.isfinite(depth) & (depth != 0)
    if valid.any() and not 0 < depth[valid].min() <= depth[valid].max() < MAX_DEPTH:
        raise DecodeError(
            f"{path}: depth runs from {depth[valid].min():g} to {depth[valid].max():g}, expected metres "
            f"above 0 and below {MAX_DEPTH:g}. Values in the thousands are millimetres: this is another "
            "packaging."
        )
    return np.where(valid, depth, np.float32(np.nan))


def read_edge_png(path: Path) -> NDArray[np.float32]:
    """0/255 on disk to 0..1; not thresholded."""
    return np.asarray(read_gray(path)[..., None] / np.float32(255), dtype=np.float32)


def read_edge_npy(path: Path) -> NDArray[np.float32]:
    """Values 0..1; not thresholded."""
    edge = read_npy(path)
    edge = edge.astype(np.float32) if edge.dtype in (np.bool_, np.uint8) else edge
    edge = value_map(path, edge, channels=1, what="edges")
    if not 0 <= edge.min() <= edge.max() <= 1:
        raise DecodeError(f"{path}: edges run from {edge.min():g} to {edge.max():g}, expected 0..1.")
    return edge


def read_normals_npy(path: Path) -> NDArray[np.float32]:
    """Unit vectors; the zero vector is no label (NaN)."""
    normals = value_map(path, read_npy(path), channels=3, what="normals")
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    if length.max() > 1.5:
        raise DecodeError(f"{path}: normals have lengths up to {length.max():.3g}, expected 1 (or 0 = none).")
    return np.where(length > 0, normals, np.float32(np.nan))


Reader = Callable[[Path], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Packaging:
    """One way in which the frames are distributed.

    Args:
        protocol: the protocol that belongs to it.
        frame: (H, W) of every image.
        image: ending of the image files.
        folders: {task: (folder, ending, reader)}.
        bad_copy: what a copy with frames of another size is.
    """

    protocol: Protocol
    frame: tuple[int, int]
    image: str
    folders: Mapping[str, tuple[str, str, Reader]]
    bad_copy: str


PACKAGINGS: dict[str, Packaging] = {
    "invpt": Packaging(
        protocol=NYUD_INVPT,
        frame=(425, 560),
        image="png",
        folders={
            "semseg": ("segmentation", "png", read_semseg),
            "depth": ("depth", "npy", read_depth),
            "normals": ("normals", "png", read_normals_png),
            "edge": ("edge", "png", read_edge_png),
        },
        bad_copy="A copy of NYUDv2.tar.gz with frames of another size circulates on Google Drive; scores on "
        "it are not comparable with any paper. Take the archive linked by the InvPT or MTMamba README.",
    ),
    "survey": Packaging(
        protocol=NYUD_SURVEY,
        frame=(480, 640),
        image="jpg",
        folders={
            "semseg": ("segmentation", "png", read_semseg),
            "depth": ("depth", "npy", read_depth),
            "normals": ("normals", "npy", read_normals_npy),
            "edge": ("edge", "npy", read_edge_npy),
        },
        bad_copy="This packaging (NYUD_MT.tgz) holds uncropped frames.",
    ),
}


@DATASETS.register_module()
class NYUDv2(PublishedDataset):
    """NYUD-v2: 795 + 654 indoor frames with 40 classes, depth, normals and edges.

    Labels: `semseg` 0..39, 255 = unlabelled. `depth` in metres, NaN = no reading. `normals` (x, y, z), stored
    in 8 bits in the `invpt` packaging, hence never missing and not exactly of length 1. `edge` 0 or 1.

    Args:
        root: folder with `gt_sets/train.txt`, `images/`, `segmentation/`, `depth/`, `normals/`, `edge/`.
        split: `train` or `val`.
        packaging: `invpt` (NYUDv2.tar.gz, 425x560) or `survey` (NYUD_MT.tgz, 480x640).
        protocol: `nyud-invpt` or `nyud-survey` by packaging, if not given.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.
        check: refuse other counts and frame sizes than published.
        missing_labels: `refuse` or `absent`.
        cache: folder of decoded samples, see `PublishedDataset`.

    Raises:
        FileNotFoundError: the folder, a list, an image or a label is missing.
        ValueError: another number of images than published.
        UnknownNameError: unknown packaging, split or task.
    """

    default_protocol: ClassVar[Protocol] = NYUD_INVPT
    page: ClassVar[str] = "datasets/nyudv2.md"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        packaging: str = "invpt",
        protocol: Protocol | None = None,
        transforms: Transforms = "tensor",
        seed: Count = 0,
        tasks: Sequence[str] | None = None,
        check: bool = True,
        missing_labels: MissingLabels = "refuse",
        cache: str | Path | None = None,
    ) -> None:
        root = Path(root)
        self.packaging = look_up("packaging of NYUDv2", packaging, PACKAGINGS)
        self._packaging_name = packaging
        require_root(
            root,
            f"  gt_sets/{{train,val}}.txt  images/*.{self.packaging.image}  segmentation/  depth/  "
            "normals/  edge/",
            "tools/prepare_dataset.py nyudv2 SRC DST",
            self.page,
        )
        look_up("split of NYUDv2", split, {"train": None, "val": None})
        super().__init__(
            root=root,
            ids=read_split(root / "gt_sets" / f"{split}.txt", root / "images", (f".{self.packaging.image}",)),
            protocol=protocol or self.packaging.protocol,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
            check=check,
            missing_labels=missing_labels,
            cache=cache,
        )

    @property
    def frame(self) -> tuple[int, int]:
        """(H, W) of every image."""
        return self.packaging.frame

    @property
    def bad_copy(self) -> str:
        """Description of a copy with frames of another size."""
        return self.packaging.bad_copy

    def image_path(self, name: str) -> Path:
        """The image file of one id."""
        return self.root / "images" / f"{name}.{self.packaging.image}"

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """The one file that a label of one id is made from."""
        folder, ending, _ = look_up("task of NYUDv2", task, self.packaging.folders)
        return (self.root / folder / f"{name}.{ending}",)

    def decode(self, index: int) -> RawSample:
        """Decode one frame and its labels."""
        name = self.ids[index]
        image = read_image(self.image_path(name))
        self.require_frame(index, image.shape)
        labels = {
            task: self.packaging.folders[task][2](self.label_paths(name, task)[0])
            for task in self.wanted(name)
        }
        return self.decoded(name, image, labels)

    def boundary_segmentation(self, index: int) -> NDArray[Any]:
        """The edge picture (H, W), which the papers' odsF tool reads as a segmentation.

        Its regions' borders, two to three pixels beside each line, are the ground truth of the published
        odsF, which therefore differs from the training label.
        """
        folder, ending, reader = self.packaging.folders["edge"]
        edge = reader(self.root / folder / f"{self.ids[index]}.{ending}")
        return np.round(edge[..., 0] * 255).astype(np.uint8)

    def usual_classes(self) -> Mapping[str, Mapping[int, float]]:
        """Walls, and other props, which are the last id and thus absent where ids were shifted before."""
        return {"semseg": {NYUD_CLASSES.index("wall"): 0.02, len(NYUD_CLASSES) - 1: 1e-4}}

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content besides the files."""
        return {"dataset": "NYUDv2", "packaging": self._packaging_name}
