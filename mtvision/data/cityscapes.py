"""Cityscapes with 19 classes and disparity, from the official archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.find import find_files
from mtvision.core.instances import encode_instances
from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE
from mtvision.core.values import Count
from mtvision.data.cityscapes_boxes import has_vehicle
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.maps.fixed import read_deep_png, read_label_png
from mtvision.data.published import MissingLabels, PublishedDataset, Transforms, require_root
from mtvision.protocols import Protocol
from mtvision.protocols.cityscapes import CITYSCAPES_CLASSES, CITYSCAPES_MTMAMBA

TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Raw label id of each of the 19 classes; every other raw id 0..33 is void."""

RAIL_TRACK, SKY = 10, 23
"""Raw label ids."""

NUM_RAW_IDS = 34
INSTANCES_PER_CLASS = 1000
FRAME = (1024, 2048)

Invalid = Literal["target", "ignore"]

_TRAIN_OF_RAW = np.full(256, IGNORE, dtype=np.uint8)
_TRAIN_OF_RAW[list(TRAIN_IDS)] = np.arange(len(TRAIN_IDS))

_INVALID_OF_PROTOCOL: dict[str, Invalid] = {"cityscapes-mtmamba": "target"}


def train_ids(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids 0..18 of raw label ids; void, and the licence plate's -1 stored as 255, become 255."""
    return np.asarray(_TRAIN_OF_RAW[raw])


def decode_instances(stored: NDArray[np.uint16], class_names: Sequence[str]) -> NDArray[np.int32]:
    """The label map of instances (`mtvision.core.instances`) from 16-bit ids.

    An id of 1000 and more is 1000 times the raw label id plus the instance's number. A smaller id is the raw
    label id. It marks stuff (no instance), void, or a group of things that could not be separated. Void and
    groups become 255.

    Args:
        stored: 16-bit ids, (H, W).
        class_names: thing classes among the 19, in the task's order.

    Raises:
        UnknownNameError: a class that is not one of the 19.
    """
    single = stored >= INSTANCES_PER_CLASS
    raw = np.where(single, stored // INSTANCES_PER_CLASS, stored).astype(np.uint8)
    position = {name: index for index, name in enumerate(CITYSCAPES_CLASSES)}
    category = np.full(256, -1, dtype=np.int64)
    for index, name in enumerate(class_names):
        category[TRAIN_IDS[look_up("class of Cityscapes", name, position)]] = index
    thing = category[raw]
    result = encode_instances(np.where(single, thing, -1), stored)
    result[(train_ids(raw) == IGNORE) | (~single & (thing >= 0))] = IGNORE
    return result


def decode_disparity(
    stored: NDArray[np.uint16], raw: NDArray[np.uint8], *, invalid: Invalid, sky_fix: bool = False
) -> NDArray[np.float32]:
    """Disparity in full-resolution pixels, (H, W, 1), from 16-bit values p.

    (p - 1) / 256 for p > 0. Then p = 0 (no match) and p = 1 (disparity 0) are invalid. Last, the sky gets 0,
    whatever was stored. The published code means raw label 23 but tests 10, which is rail track. This
    function does the same unless `sky_fix`.

    Args:
        stored: 16-bit values, (H, W).
        raw: raw label ids, (H, W).
        invalid: `target` keeps invalid pixels as -1, which the loss then learns (MTMamba); `ignore` makes
            them NaN.
        sky_fix: zero the sky instead of rail tracks.
    """
    disparity = np.where(stored > 1, (stored.astype(np.float32) - 1) / np.float32(256), np.float32(-1))
    if invalid == "ignore":
        disparity[disparity == -1] = np.nan
    disparity[raw == (SKY if sky_fix else RAIL_TRACK)] = 0
    return np.asarray(disparity[..., None], dtype=np.float32)


@DATASETS.register_module()
class Cityscapes(PublishedDataset):
    """Cityscapes: 2975 + 500 street scenes of 1024x2048 with 19 classes and disparity under the key `depth`.

    Images and labels leave `read` in full resolution; the protocols' presets resize the one or the other.

    Args:
        root: folder with `leftImg8bit/`, `gtFine/` and `disparity/`, each with `train/` and `val/`.
        split: `train` or `val`.
        protocol: `cityscapes-mtmamba` if not given.
        invalid_disparity: `target` or `ignore`, see `decode_disparity`; None = as the protocol's published
            code: `target` for `cityscapes-mtmamba`, `ignore` for all others.
        sky_fix: zero the disparity of the sky instead of that of rail tracks.
        with_vehicles: only images with the 3D box of a vehicle, as TaskPrompter trains on them; needs
            `gtBbox3d/` of Cityscapes-3D.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.
        check: refuse other counts and frame sizes than published.
        missing_labels: `refuse` or `absent`.
        cache: folder of decoded samples, see `PublishedDataset`.

    Raises:
        FileNotFoundError: the folder, an image or a label is missing.
        ValueError: another number of images than published.
        UnknownNameError: unknown split, task or value of `invalid_disparity`.
    """

    default_protocol: ClassVar[Protocol] = CITYSCAPES_MTMAMBA
    page: ClassVar[str] = "datasets/cityscapes.md"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        protocol: Protocol | None = None,
        invalid_disparity: Invalid | None = None,
        sky_fix: bool = False,
        with_vehicles: bool = False,
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
            "  {leftImg8bit,gtFine,disparity}/{train,val}/<city>/*.png",
            "tools/prepare_dataset.py cityscapes SRC DST",
            self.page,
        )
        look_up("split of Cityscapes (test has no public labels)", split, {"train": None, "val": None})
        protocol = protocol or self.default_protocol
        self.sky_fix = sky_fix
        self.invalid_disparity: Invalid = look_up(
            "invalid_disparity",
            invalid_disparity or _INVALID_OF_PROTOCOL.get(protocol.id, "ignore"),
            {"target": "target", "ignore": "ignore"},
        )  # type: ignore[assignment]
        # the published code walks the folder in the file system's order; sorted, every machine has the same
        # order
        images = find_files(root / "leftImg8bit" / split, (), suffix="_leftImg8bit.png", depth=1)
        keys = sorted(key.split("/") for key in images.files if "/" in key)
        ids = [name for _, name in keys]
        self.with_vehicles = with_vehicles
        super().__init__(
            root=root,
            ids=[name for name in ids if has_vehicle(root, split, name)] if with_vehicles else ids,
            protocol=protocol,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
            check=check,
            missing_labels=missing_labels,
            cache=cache,
            remarks=[images.summary()],
        )

    def _path(self, name: str, kind: str, ending: str) -> Path:
        return self.root / kind / self.split / name.split("_")[0] / f"{name}_{ending}.png"

    @property
    def frame(self) -> tuple[int, int]:
        """(H, W) of every image."""
        return FRAME

    @property
    def bad_copy(self) -> str:
        """Description of a copy with frames of another size."""
        return "Take leftImg8bit_trainvaltest.zip, not a resized copy."

    def image_path(self, name: str) -> Path:
        """The image file of one id."""
        return self._path(name, "leftImg8bit", "leftImg8bit")

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """Files of one label; disparity needs the label ids too, for the rule about the sky."""
        ids = self._path(name, "gtFine", "gtFine_labelIds")
        paths = {
            "semseg": (ids,),
            "depth": (self._path(name, "disparity", "disparity"), ids),
            "instance": (self._path(name, "gtFine", "gtFine_instanceIds"),),
        }
        return look_up("task of Cityscapes", task, paths)

    def decode(self, index: int) -> RawSample:
        """Decode one image and its labels."""
        name = self.ids[index]
        image = read_image(self.image_path(name))
        self.require_frame(index, image.shape)
        present = self.wanted(name)
        labels: dict[str, NDArray[Any]] = {}
        raw = self._raw_ids(name) if {"semseg", "depth"} & set(present) else None
        if raw is not None and "semseg" in present:
            labels["semseg"] = train_ids(raw)
        if raw is not None and "depth" in present:
            stored = self._stored_disparity(name, raw.shape)
            labels["depth"] = decode_disparity(
                stored, raw, invalid=self.invalid_disparity, sky_fix=self.sky_fix
            )
        if "instance" in present:
            labels["instance"] = self._things(name)
        return self.decoded(name, image, labels, city=name.split("_")[0])

    def _raw_ids(self, name: str) -> NDArray[np.uint8]:
        path = self.label_paths(name, "semseg")[0]
        raw = read_label_png(path)
        wrong = (raw >= NUM_RAW_IDS) & (raw != IGNORE)
        if raw.dtype != np.uint8 or wrong.any():
            raise DecodeError(
                f"{path}: holds {raw.dtype} ids up to {raw.max()}, expected the raw label ids 0..33. Take "
                "*_gtFine_labelIds.png of gtFine_trainvaltest.zip, not another kind of label file."
            )
        return raw

    def _things(self, name: str) -> NDArray[np.int32]:
        path = self.label_paths(name, "instance")[0]
        stored = read_label_png(path)
        if stored.dtype != np.uint16 or int(stored.max()) >= NUM_RAW_IDS * INSTANCES_PER_CLASS:
            raise DecodeError(
                f"{path}: holds {stored.dtype} ids up to {stored.max()}, expected 16-bit ids below "
                f"{NUM_RAW_IDS * INSTANCES_PER_CLASS}. Take *_gtFine_instanceIds.png of "
                "gtFine_trainvaltest.zip."
            )
        return decode_instances(stored, self.tasks["instance"].class_names)

    def _stored_disparity(self, name: str, size: tuple[int, ...]) -> NDArray[np.uint16]:
        path = self.label_paths(name, "depth")[0]
        remedy = "Again take the file from disparity_trainvaltest.zip."
        stored = read_deep_png(path, "a disparity file", remedy)
        if stored.shape != size:
            raise DecodeError(
                f"{path}: the disparity is {stored.shape[0]}x{stored.shape[1]} but the label ids are "
                f"{size[0]}x{size[1]}. One of the two was resized; unpack the official archives again."
            )
        return stored

    def usual_classes(self) -> Mapping[str, Mapping[int, float]]:
        """Roads, which are traffic signs where ids were converted before."""
        return {"semseg": {CITYSCAPES_CLASSES.index("road"): 0.05}}

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content besides the files."""
        return {
            "dataset": "Cityscapes", "invalid_disparity": self.invalid_disparity, "sky_fix": self.sky_fix,
        }  # fmt: skip
