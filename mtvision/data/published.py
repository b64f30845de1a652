"""Base of the loaders of published data sets: lists of ids, missing files, error messages."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.find import find_files
from mtvision.core.files.ids import matched_ids, require_single
from mtvision.core.files.names import case_hint
from mtvision.core.files.text import read_ids
from mtvision.core.naming import look_up
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE
from mtvision.data.array_cache import ArrayCache
from mtvision.data.dataset import DenseDataset
from mtvision.data.decode import DecodeError
from mtvision.data.png import fast_decoders
from mtvision.data.transforms import Transform
from mtvision.protocols import Protocol
from mtvision.runtime.launch import is_main_process

_log = logging.getLogger("mtvision")

Transforms = str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform]
MissingLabels = Literal["refuse", "absent"]


def read_split(path: Path, folder: Path | None = None, endings: Sequence[str] = ()) -> list[str]:
    """Image ids of a split file, one a line, in the file's order.

    Args:
        path: of the list.
        folder: of the images; then ids may also be file names or paths in it.
        endings: of the images, in lower case.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text, holds no id, an id twice, or several columns.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: the list of image ids is missing. {case_hint(path)}Take it from the data set's archive."
        )
    lines = read_ids(path)
    ids = require_single(lines, str(path))
    if folder is None or not folder.is_dir() or not any(_is_path(name, endings) for name in ids):
        return ids
    known = find_files(folder, endings, depth=0).files
    found = matched_ids(lines, known, where=str(path), folder=folder, endings=endings)
    if found.remark() and is_main_process():
        _log.warning("%s", found.remark())
    return found.ids


def _is_path(name: str, endings: Sequence[str]) -> bool:
    return "/" in name or "\\" in name or name.lower().endswith(tuple(endings))


class PublishedDataset(DenseDataset):
    """A data set whose layout papers have fixed: refuses what would silently change a score.

    Nothing is ever written into the data set's folder.

    Args:
        root: the data set's folder.
        ids: images of the split, in order.
        protocol: see `DenseDataset`.
        split: name of the split.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict the protocol to these tasks; files of other tasks need not exist.
        check: refuse another number of images or another frame size than published.
        missing_labels: `refuse` stops when a label file is missing; `absent` makes the label absent from the
            sample, for partially labelled copies.
        cache: folder that `tools/prepare_dataset.py --cache` wrote; None decodes.
        remarks: what was left out when the ids were listed, see `DenseDataset.remarks`.

    Raises:
        StaleCacheError: the cache was made from other files.
        FileNotFoundError: an image, or a label under `missing_labels="refuse"`, does not exist.
    """

    page: ClassVar[str] = "datasets/"
    """Where the user finds out how to get the data."""

    def __init__(
        self,
        *,
        root: str | Path,
        ids: Sequence[str],
        protocol: Protocol,
        split: str,
        transforms: Transforms,
        seed: int,
        tasks: Sequence[str] | None,
        check: bool,
        missing_labels: MissingLabels,
        cache: str | Path | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        self.root = Path(root)
        self._remarks = tuple(filter(None, remarks))
        self.check = check
        super().__init__(
            ids=ids,
            protocol=protocol,
            split=split,
            transforms=transforms,
            seed=seed,
            tasks=tasks,
            check_split=check,
        )
        look_up("missing_labels", missing_labels, {"refuse": None, "absent": None})
        self.labelled = {name: self._labelled(name, missing_labels) for name in self.tasks}
        self._require_images()
        self._cache = None if cache is None else ArrayCache(Path(cache), self)
        for remark in self._remarks if is_main_process() else ():
            _log.warning("%s", remark)
        fast_decoders()  # says here, once, if there are none, and not in every worker

    def read(self, index: int) -> RawSample:
        """One image and its labels, from the cache if there is one, else decoded."""
        if self._cache is not None:
            return self._cache.read(index, self.tasks)
        return self.decode(index)

    @abstractmethod
    def decode(self, index: int) -> RawSample:
        """Decode one image and its labels from their files."""

    def wanted(self, name: str) -> list[str]:
        """Tasks of which an image has labels, in the protocol's order."""
        return [task for task, names in self.labelled.items() if name in names]

    def decoded(
        self, name: str, image: NDArray[Any], labels: dict[str, NDArray[Any]], **extra: str
    ) -> RawSample:
        """An image and labels as they are on disk, not scaled.

        Args:
            name: id of the image.
            image: (H, W, 3).
            labels: {task: label}.
            extra: further entries of `Meta.extra`.
        """
        size = (int(image.shape[0]), int(image.shape[1]))
        meta = Meta(id=name, size=size, original_size=size, extra=extra)
        return RawSample(image=image, labels=labels, tasks=self.tasks, meta=meta)

    @abstractmethod
    def image_path(self, name: str) -> Path:
        """The image file of one id."""

    @abstractmethod
    def label_paths(self, name: str, task: str) -> tuple[Path, ...]:
        """Every file that a label of one id is made from, the most important first."""

    def remarks(self) -> Sequence[str]:
        """What was left out when the ids were listed."""
        return self._remarks

    def source(self, index: int, task: str | None = None) -> str:
        """File of the image (`task=None`) or of one label."""
        name = self.ids[index]
        return str(self.label_paths(name, task)[0] if task else self.image_path(name))

    def files(self) -> dict[str, Path]:
        """{path relative to the root: path} of every file that this split reads."""
        parts = [self.files_of(task) for task in (None, *self.labelled)]
        return {name: path for part in parts for name, path in part.items()}

    def files_of(self, task: str | None) -> dict[str, Path]:
        """Those of the images, or of one task's labels."""
        if task is None:
            paths = [self.image_path(name) for name in self.ids]
        else:
            labelled = [name for name in self.ids if name in self.labelled[task]]
            paths = [path for name in labelled for path in self.label_paths(name, task)]
        return {path.relative_to(self.root).as_posix(): path for path in paths}

    def missing(self, task: str | None = None) -> list[Path]:
        """Files of the images (`task=None`) or of one task's labels that do not exist."""
        if task is None:
            return [path for path in map(self.image_path, self.ids) if not path.is_file()]
        return [path for name in self.ids for path in self.label_paths(name, task) if not path.is_file()]

    def _labelled(self, task: str, missing_labels: MissingLabels) -> frozenset[str]:
        lacking = {
            name for name in self.ids if not all(path.is_file() for path in self.label_paths(name, task))
        }
        if lacking and missing_labels == "refuse":
            first = self.missing(task)[0]
            others = [name for name in self.tasks if name != task]
            raise FileNotFoundError(
                f"{first}: label files of task '{task}' are missing for {len(lacking)} of {len(self)} "
                f"images of split '{self.split}'. {case_hint(first)}{self.hint(task)}Leave the task out with "
                f"tasks={others}, or give missing_labels='absent' to train on what is there. How to get "
                f"the data: {self.page}"
            )
        return frozenset(name for name in self.ids if name not in lacking)

    def hint(self, task: str) -> str:
        """A sentence, ending in a blank, about why files of that task are often missing."""
        return ""

    def _require_images(self) -> None:
        lacking = self.missing()
        if lacking:
            raise FileNotFoundError(
                f"{lacking[0]}: {len(lacking)} of {len(self)} images that the list of split "
                f"'{self.split}' names are missing. {case_hint(lacking[0])}Unpacking or copying did not "
                f"finish, or the list belongs to another copy. How to get the data: {self.page}"
            )

    @property
    def frame(self) -> tuple[int, int] | None:
        """(H, W) that every image of this packaging has; None = images differ."""
        return None

    @property
    def bad_copy(self) -> str:
        """Description of a copy with frames of another size, and the copy to use instead."""
        return ""

    def require_frame(self, index: int, size: Sequence[int]) -> None:
        """Refuse a frame of another size than published.

        Raises:
            DecodeError: names the file and what the copy probably is.
        """
        expected = self.frame
        if self.check and expected is not None and tuple(size[:2]) != expected:
            raise DecodeError(
                f"{self.source(index)}: the image is {size[0]}x{size[1]} (height x width), this "
                f"packaging has {expected[0]}x{expected[1]}. {self.bad_copy}"
            )


def require_root(root: Path, layout: str, command: str, page: str) -> None:
    """Refuse a root that does not exist.

    Raises:
        FileNotFoundError: says what was looked for, what should be there and how to make it.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder. Expected there:\n{layout}\nIt is made by `{command}`; where to "
            f"get the files: {page}"
        )


def class_map(path: Path, label: NDArray[Any], *, shift: int, count: int) -> NDArray[Any]:
    """Ids on disk minus `shift`, what falls below 0 is no label; uint8 for a file of 8 bits, else int64.

    Raises:
        DecodeError: an id on disk is neither 0..count-1+shift nor 255.
    """
    if label.ndim != 2:
        raise DecodeError(f"{path}: expected a class map (H, W), got shape {label.shape}.")
    whole = np.issubdtype(label.dtype, np.integer)
    if not whole and not np.array_equal(label.astype(np.int64), label):
        raise DecodeError(f"{path}: class ids must be whole numbers. This is another kind of file.")
    wrong = (label >= count + shift) & (label != IGNORE)
    if wrong.any():
        none = f"0..{shift - 1} (none) and " if shift else ""
        raise DecodeError(
            f"{path}: holds the id {int(label[wrong].min())}, expected {none}{shift}..{count - 1 + shift} or "
            f"{IGNORE}. Is it a label file of another version of the data set?"
        )
    if label.dtype == np.uint8:
        return np.asarray(cv2.LUT(label, _shifted(shift)))
    result = label.astype(np.int64) - shift
    result[(result < 0) | (label == IGNORE)] = IGNORE
    return result


@lru_cache
def _shifted(shift: int) -> NDArray[np.uint8]:
    """Ids minus `shift` for each of the 256 ids; 255 for those below `shift` and for 255."""
    ids = np.arange(256) - shift
    return np.where((ids < 0) | (ids == IGNORE - shift), IGNORE, ids).astype(np.uint8)


def value_map(path: Path, array: NDArray[Any], *, channels: int, what: str) -> NDArray[np.float32]:
    """A floating-point map as float32 (H, W, channels).

    Raises:
        DecodeError: another shape, or integers.
    """
    array = array[..., None] if array.ndim == 2 and channels == 1 else array
    if array.ndim != 3 or array.shape[2] != channels:
        raise DecodeError(f"{path}: expected {what} of shape (H, W, {channels}), got {array.shape}.")
    if not np.issubdtype(array.dtype, np.floating):
        raise DecodeError(
            f"{path}: expected {what} as floating-point numbers, got {array.dtype}. The file is encoded "
            "in another way than this packaging; take the original."
        )
    return np.asarray(array, dtype=np.float32)
