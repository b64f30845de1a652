"""A part of a data set, e.g. the held-out slice of a training set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mtvision.core.naming import look_up
from mtvision.core.random import HELD_OUT_SHARE, is_held_out
from mtvision.core.registry import DATASETS
from mtvision.core.sample import RawSample, Sample, SampleKey
from mtvision.core.values import Share
from mtvision.data.dataset import DenseDataset
from mtvision.data.maps.encoding import Encoding
from mtvision.data.transforms import Transform
from mtvision.protocols import Protocol


class PartOfDataset(DenseDataset):
    """The images of a data set whose id passes a test; each is exactly the sample that the whole set gives.

    Args:
        whole: the data set.
        keep: called with an id.

    Raises:
        ValueError: no image is left.
    """

    def __init__(self, whole: DenseDataset, keep: Callable[[str], bool]) -> None:
        self.whole = whole
        self.indices = [index for index, name in enumerate(whole.ids) if keep(name)]
        if not self.indices:
            raise ValueError(
                f"none of the {len(whole)} images of split '{whole.split}' is in the part asked for; "
                "choose another share."
            )
        self.protocol, self.split, self.seed = whole.protocol, whole.split, whole.seed
        self.ids = [whole.ids[index] for index in self.indices]
        self.tasks, self.pipeline = whole.tasks, whole.pipeline
        self.labels_match_image = whole.labels_match_image

    def read(self, index: int) -> RawSample:
        """See `DenseDataset`."""
        return self.whole.read(self.indices[index])

    def source(self, index: int, task: str | None = None) -> str:
        """See `DenseDataset`."""
        return self.whole.source(self.indices[index], task)

    def files(self) -> dict[str, Path]:
        """Those of the whole set."""
        return self.whole.files()

    def files_of(self, task: str | None) -> dict[str, Path]:
        """Those of the whole set."""
        return self.whole.files_of(task)

    def remarks(self) -> Sequence[str]:
        """Those of the whole set."""
        return self.whole.remarks()

    def usual_classes(self) -> Mapping[str, Mapping[int, float]]:
        """Those of the whole set."""
        return self.whole.usual_classes()

    def parameters(self) -> Mapping[str, Any]:
        """Those of the whole set."""
        return self.whole.parameters()

    def encodings(self) -> Mapping[str, Encoding]:
        """Those of the whole set."""
        return self.whole.encodings()

    def __getitem__(self, key: int | SampleKey) -> Sample:
        key = key if isinstance(key, SampleKey) else SampleKey(epoch=0, index=int(key))
        if not 0 <= key.index < len(self):
            raise IndexError(f"{type(self).__name__}: index {key.index} of {len(self)} images.")
        return self.whole[SampleKey(key.epoch, self.indices[key.index])]

    def transformed(self, key: SampleKey) -> RawSample:
        """See `DenseDataset`."""
        return self.whole.transformed(SampleKey(key.epoch, self.indices[key.index]))


def _whole(
    dataset: Mapping[str, Any],
    protocol: Protocol | None,
    transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] | None,
    seed: int,
) -> DenseDataset:
    """The data set that a part is taken from."""
    changed = {} if transforms is None else {"transforms": transforms}
    whole: DenseDataset = DATASETS.build({**dataset, **changed}, protocol=protocol, seed=seed)
    return whole


@DATASETS.register_module()
class SelectedImages(PartOfDataset):
    """Named images of another data set, each exactly as the whole set gives it.

    Args:
        dataset: config of the other one, `dict(type=..., ...)`.
        ids: names of its images; they keep its order.
        protocol: of both.
        transforms: instead of the other one's own.
        seed: of the transforms' draws.

    Raises:
        UnknownNameError: the other data set has no image of an id.
        ValueError: no id is given.
    """

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        ids: Sequence[str],
        protocol: Protocol | None = None,
        transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] | None = None,
        seed: int = 0,
    ) -> None:
        whole = _whole(dataset, protocol, transforms, seed)
        known = dict.fromkeys(whole.ids)
        for name in ids:
            look_up(f"image of split '{whole.split}'", name, known)
        super().__init__(whole, set(ids).__contains__)


@DATASETS.register_module()
class HeldOutImages(PartOfDataset):
    """The held-out slice of a training set, or the rest of it (`mtvision.core.random`).

    Choices of hyper-parameters are made on the slice, so that the test split is seen once.

    Args:
        dataset: config of the training set, `dict(type=..., ...)`.
        part: the slice, or what is left to train on.
        held_out: share of the images in the slice, by id.
        protocol: of both.
        transforms: instead of the other one's own.
        seed: of the transforms' draws.

    Raises:
        ValueError: no image is in the part.
    """

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        part: Literal["held_out", "rest"] = "held_out",
        held_out: Share = HELD_OUT_SHARE,
        protocol: Protocol | None = None,
        transforms: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform] | None = None,
        seed: int = 0,
    ) -> None:
        whole = _whole(dataset, protocol, transforms, seed)
        wanted = part == "held_out"
        super().__init__(whole, lambda name: is_held_out(name, held_out) == wanted)
