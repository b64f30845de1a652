"""mOSD: Kinect frames of objects on a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.find import find_files
from mtvision.core.instances import encode_instances
from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE
from mtvision.core.values import Count
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.derive import edges_from_classes, without_void
from mtvision.data.maps.files import read_npy
from mtvision.data.maps.fixed import read_deep_png, read_label_png
from mtvision.data.published import MissingLabels, PublishedDataset, Transforms, require_root, value_map
from mtvision.protocols import Protocol
from mtvision.protocols.mosd import MOSD

STARTS = {"train": "learn", "val": "test"}
"""{split: start of the file names}; this is the official split."""
PARTS = 10
"""Ids below it are parts of the table; 10 k .. 10 k + 9 are the parts of object k - 1, from 20 on."""
MILLIMETRES = 1000
AGAIN = "Prepare the files again with tools/prepare_dataset.py mosd."


def objects_of(path: Path, parts: NDArray[Any], depth: NDArray[Any]) -> NDArray[np.uint8]:
    """0 = table, 1, 2, ... = objects, 255 = no label, (H, W); pixels without depth have none.

    Args:
        path: of the label file, for the message.
        parts: ids on disk, (H, W).
        depth: millimetres, (H, W), 0 = none.

    Raises:
        DecodeError: an id is neither of the table nor of an object, or the sizes differ.
    """
    if parts.shape != depth.shape:
        raise DecodeError(
            f"{path}: the label is {parts.shape}, the depth {depth.shape}. Take both from one set."
        )
    wrong = ((parts >= PARTS) & (parts < 2 * PARTS)) | (parts >= IGNORE)
    if wrong.any():
        raise DecodeError(
            f"{path}: holds the id {int(parts[wrong][0])}, expected 0 (none), 1..9 (table) or 20..254 (parts "
            f"of objects). {AGAIN}"
        )
    numbers = np.maximum(parts.astype(np.int64) // PARTS - 1, 0)
    return np.where((parts == 0) | (depth == 0), IGNORE, numbers).astype(np.uint8)


@DATASETS.register_module()
class Mosd(PublishedDataset):
    """mOSD: 45 + 62 frames 480x640 of objects on a table, of a Kinect.

    Labels: `semseg` 0 table, 1 object. `depth` in metres, NaN = no reading. `normals` (x right, y up, z to
    the viewer), planes fitted to the depth, NaN = none. `edge`: borders between table and objects and between
    objects, NaN beside pixels without label. `saliency` 1 on objects. `instance`: objects.
    Pixels without depth have no label; they are 36 to 45 % of a frame.

    Args:
        root: folder with `rgb/`, `depth/`, `label/` and `normals/`.
        split: `train` or `val`.
        protocol: `mosd` if not given.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.
        check: refuse other counts and frame sizes than published.
        missing_labels: `refuse` or `absent`.
        cache: folder of decoded samples, see `PublishedDataset`.

    Raises:
        FileNotFoundError: the folder, an image or a label is missing.
        ValueError: another number of images than published.
        UnknownNameError: unknown split or task.
    """

    default_protocol: ClassVar[Protocol] = MOSD
    page: ClassVar[str] = "datasets/mosd.md"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        protocol: Protocol | None = None,
        transforms: Transforms = "tensor",
        seed: Count = 0,
        tasks: Sequence[str] | None = None,
        check: bool = True,
        missing_labels: MissingLabels = "refuse",
        cache: str | Path | None = None,
    ) -> None:
        root = Path(root)
        require_root(
            root, "  rgb/*.png  depth/*.png  label/*.png  normals/*.npy",
            "tools/prepare_dataset.py mosd SRC DST", self.page,
        )  # fmt: skip
        start = look_up("split of Mosd", split, STARTS)
        found = find_files(root / "rgb", (".png",), depth=0)
        super().__init__(
            root=root,
            ids=[name for name in found.files if name.startswith(start)],
            protocol=protocol or MOSD,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
            check=check,
            missing_labels=missing_labels,
            cache=cache,
            remarks=[found.summary(f"images in {found.folder}")],
        )

    @property
    def frame(self) -> tuple[int, int]:
        """(H, W) of every image."""
        return 480, 640

    @property
    def bad_copy(self) -> str:
        """Description of a copy with frames of another size."""
        return "The clouds of mOSD are organised as 480 rows of 640 points."

    def image_path(self, name: str) -> Path:
        """The image file of one id."""
        return self.root / "rgb" / f"{name}.png"

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """Files of the parts and the depth; of depth or normals, the one file."""
        parts, depth = self.root / "label" / f"{name}.png", self.root / "depth" / f"{name}.png"
        single = {"depth": (depth,), "normals": (self.root / "normals" / f"{name}.npy",)}
        return single.get(task, (parts, depth))

    def decode(self, index: int) -> RawSample:
        """Decode one frame and its labels."""
        name = self.ids[index]
        image = read_image(self.image_path(name))
        self.require_frame(index, image.shape)
        wanted = self.wanted(name)
        labels: dict[str, NDArray[Any]] = {}
        if "normals" in wanted:
            path = self.label_paths(name, "normals")[0]
            labels["normals"] = value_map(path, read_npy(path), channels=3, what="normals")
        if set(wanted) - {"normals"}:
            labels |= self._from_depth(name, wanted)
        return self.decoded(name, image, {task: labels[task] for task in wanted})

    def _from_depth(self, name: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        stored = read_deep_png(self.label_paths(name, "depth")[0], "a depth file", AGAIN)
        metres = stored.astype(np.float32) / MILLIMETRES
        labels: dict[str, NDArray[Any]] = {
            "depth": np.where(stored > 0, metres, np.float32(np.nan)).astype(np.float32)[..., None]
        }
        if set(wanted) - {"normals", "depth"}:
            path = self.label_paths(name, "semseg")[0]
            objects = objects_of(path, read_label_png(path), stored)
            labels |= labels_of_objects(objects, edges="edge" in wanted)
        return labels

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content besides the files."""
        return {"dataset": "mOSD"}


def labels_of_objects(objects: NDArray[np.uint8], *, edges: bool = True) -> dict[str, NDArray[Any]]:
    """The labels that are made from a map of `objects_of`; edges only where they are wanted."""
    void = objects == IGNORE
    things = np.where(void, IGNORE, objects > 0).astype(np.uint8)
    numbered = encode_instances(np.where(~void & (objects > 0), 0, -1), objects)
    labels: dict[str, NDArray[Any]] = {
        "semseg": things,
        "saliency": things,
        "instance": np.where(void, IGNORE, numbered).astype(np.int32),
    }
    if edges:
        labels["edge"] = without_void(edges_from_classes(objects), objects)
    return labels
