"""BSDS with saliency: boundaries of several annotators and salient objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.find import find_files
from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.core.values import Count
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.maps.fixed import read_deep_png, read_gray
from mtvision.data.published import MissingLabels, PublishedDataset, Transforms, require_root
from mtvision.protocols import Protocol
from mtvision.protocols.bsds_sod import BSDS_SOD, BSDS_SPLITS, MOST_ANNOTATORS


def pack_annotators(maps: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint16]:
    """The maps (H, W) of all annotators in one: annotator k drew the pixels whose bit k is set."""
    packed = np.zeros(maps[0].shape, dtype=np.uint16)
    for number, drawn in enumerate(maps):
        packed |= drawn.astype(np.uint16) << number
    return packed


def unpack_annotators(path: Path, packed: NDArray[Any]) -> NDArray[np.float32]:
    """float32 (H, W, 1 + MOST_ANNOTATORS): the share of annotators, then the map of each; zeros beyond them.

    Raises:
        DecodeError: there is no boundary, or there are more annotators than fit.
    """
    most = int(packed.max(initial=0))
    if not 0 < most < 2**MOST_ANNOTATORS:
        raise DecodeError(
            f"{path}: the largest number is {most}, expected bits of 1 to {MOST_ANNOTATORS} annotators. "
            "Prepare it again with tools/prepare_dataset.py bsds_sod."
        )
    bits = (packed[..., None].astype(np.uint16) >> np.arange(MOST_ANNOTATORS, dtype=np.uint16)) & 1
    maps = bits.astype(np.float32)
    share = maps.sum(axis=2, keepdims=True) / np.float32(most.bit_length())
    return np.concatenate([share, maps], axis=2)


def _packed(path: Path) -> NDArray[np.uint16]:
    remedy = "Prepare it again with tools/prepare_dataset.py bsds_sod."
    return read_deep_png(path, "a file of annotators", remedy)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """0 background, 1 salient, (H, W), of a mask with any number of bits: cut at half of its range.

    Raises:
        DecodeError: it is no gray picture.
    """
    mask = read_gray(path)
    return (mask.astype(np.float64) * 2 > max(int(mask.max(initial=0)), 1)).astype(np.uint8)


@DATASETS.register_module()
class BSDSSaliency(PublishedDataset):
    """BSDS with saliency: 200 + 100 photographs with boundaries of up to nine people, and salient objects.

    Labels: `edge`, see `mtvision.protocols.bsds_sod.annotated_edge`. `saliency` 0 or 1.

    Args:
        root: folder with `images/{train,val}/`, `annotators/` and `saliency/`.
        split: `train` or `val`.
        protocol: `bsds-sod` if not given.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.
        check: refuse another number of images than published.
        missing_labels: `refuse` or `absent`.
        cache: folder of decoded samples, see `PublishedDataset`.

    Raises:
        FileNotFoundError: the folder, an image or a label is missing.
        ValueError: another number of images than published.
        UnknownNameError: unknown split or task.
    """

    default_protocol: ClassVar[Protocol] = BSDS_SOD
    page: ClassVar[str] = "datasets/bsds_sod.md"

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
            root, "  images/{train,val}/*.jpg  annotators/*.png  saliency/*.png",
            "tools/prepare_dataset.py bsds_sod SRC DST", self.page,
        )  # fmt: skip
        look_up("split of BSDSSaliency", split, BSDS_SPLITS)
        found = find_files(root / "images" / split, (".jpg",), depth=0)
        super().__init__(
            root=root,
            ids=list(found.files),
            protocol=protocol or BSDS_SOD,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
            check=check,
            missing_labels=missing_labels,
            cache=cache,
            remarks=[found.summary(f"images in {found.folder}")],
        )

    def image_path(self, name: str) -> Path:
        """The image file of one id."""
        return self.root / "images" / self.split / f"{name}.jpg"

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """The one file that a label of one id is made from."""
        folder = look_up("task of BSDSSaliency", task, {"edge": "annotators", "saliency": "saliency"})
        return (self.root / folder / f"{name}.png",)

    def decode(self, index: int) -> RawSample:
        """Decode one photograph and its labels."""
        name = self.ids[index]
        image = read_image(self.image_path(name))
        labels: dict[str, NDArray[Any]] = {}
        for task in self.wanted(name):
            path = self.label_paths(name, task)[0]
            labels[task] = unpack_annotators(path, _packed(path)) if task == "edge" else read_mask(path)
        return self.decoded(name, image, labels)

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content besides the files."""
        return {"dataset": "BSDSSaliency"}
