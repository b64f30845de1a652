"""Predictions on disk: one folder per task, one file per image, and a manifest.

    DIR/predictions.json
    DIR/<task>/<image id>.png or .npy

`exact` loses nothing: class maps are PNG (8 bits, 16 where a task has more than 256 classes), everything else
is NPY float32 (C, H, W). `8bit` stores probabilities (boundaries, saliency) as PNG of floor(255 p), which is
what the papers' MATLAB tools read; all other maps are as in `exact`. Maps have the labels' size, without
padding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import mtvision
from mtvision.core.files.arrays import npy_shape
from mtvision.core.files.find import FoundFiles, find_files
from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.headers import picture_header
from mtvision.core.files.walk import FOLDER, walk
from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.data.maps.encoding import Encoding
from mtvision.data.maps.options import BOUNDED, MapOptions
from mtvision.evaluation.formats import FORMATS, Format
from mtvision.evaluation.prediction_manifest import (
    MANIFEST,
    SUFFIXES,
    VERSION,
    PredictionFilesError,
    read_manifest,
    relative_path,
)
from mtvision.evaluation.prediction_maps import by, decide_predictions, prediction_of
from mtvision.runtime.atomic import atomic_file, write_text
from mtvision.runtime.launch import gather, is_main_process

PROBABILITIES = BOUNDED
"""Activations whose predictions are probabilities in 0..1, which fit into 8-bit images."""
_HEADER = 2**16
"""Bytes at the start of a picture that its size is looked for in."""
NAMED = 5
"""How many files of one kind an error lists."""


def suffix_of(task: Task, file_format: Format) -> str:
    """`.png` or `.npy`, how a task's predictions are stored."""
    as_picture = task.activation == "argmax" or (file_format == "8bit" and task.activation in PROBABILITIES)
    return ".png" if as_picture else ".npy"


class PredictionWriter:
    """Writes predictions while a network is scored; every process writes its own images.

    A folder that holds predictions of something else is refused. If they are of the same checkpoint, split
    and format, the run continues, and existing files stay.

    Args:
        folder: created if absent.
        tasks: whose predictions come.
        identity: plain data that says what the predictions are of (protocol, split, checkpoint, ...).
        file_format: `exact` or `8bit`.
        overwrite: delete earlier predictions.

    Raises:
        FileExistsError: the folder holds other predictions, or other files.
        UnknownNameError: an unknown format.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[Task],
        *,
        identity: Mapping[str, Any],
        file_format: Format = "exact",
        overwrite: bool = False,
    ) -> None:
        look_up("prediction format", file_format, dict.fromkeys(FORMATS))
        self.folder = folder
        self.tasks = tuple(tasks)
        self.file_format: Format = file_format
        self._identity = {
            "version": VERSION,
            "suite": mtvision.__version__,
            **json.loads(json.dumps(identity)),
            "format": file_format,
            "tasks": {task.name: suffix_of(task, file_format) for task in tasks},
        }
        self._sizes: dict[str, list[int]] = {}
        if is_main_process():
            self._prepare(overwrite)
        if dist.is_initialized():
            dist.barrier()

    def __call__(self, image: str, predictions: Mapping[str, Tensor]) -> None:
        """Write one image's predictions (without batch axis and padding); files that exist are kept.

        Raises:
            ValueError: the id cannot be a file name.
        """
        for task in self.tasks:
            values = predictions[task.name].detach().cpu().numpy()
            self._sizes[image] = [int(side) for side in values.shape[-2:]]
            suffix = suffix_of(task, self.file_format)
            path = self.folder / task.name / f"{relative_path(image)}{suffix}"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                _save(path, as_stored(task, values, suffix))

    def finish(self) -> None:
        """Complete the manifest, once all images of all processes are written."""
        sizes = {image: size for part in gather(self._sizes) for image, size in part.items()}
        if is_main_process():
            self._write_manifest({"complete": True, "sizes": dict(sorted(sizes.items()))})

    def _prepare(self, overwrite: bool) -> None:
        earlier = read_manifest(self.folder)
        if earlier is None:
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise FileExistsError(
                    f"{self.folder} holds files but no {MANIFEST}; give an empty or a new folder."
                )
        elif overwrite:
            for place in (self.folder / name for name in earlier.get("tasks", {})):
                if place.is_dir():
                    for path in _find(place).files.values():
                        path.unlink()
        elif {key: value for key, value in earlier.items() if key in self._identity} != self._identity:
            changed = sorted(key for key in self._identity if earlier.get(key) != self._identity[key])
            raise FileExistsError(
                f"{self.folder} holds other predictions (they differ in {', '.join(changed)}). Choose "
                "another folder, or throw them away with --overwrite."
            )
        for task in self.tasks:
            (self.folder / task.name).mkdir(parents=True, exist_ok=True)
        self._write_manifest({"complete": False, "sizes": {}})

    def _write_manifest(self, state: Mapping[str, Any]) -> None:
        write_text(self.folder / MANIFEST, json.dumps({**self._identity, **state}, indent=1) + "\n")


def as_stored(task: Task, values: NDArray[Any], suffix: str) -> NDArray[Any]:
    """The array that goes into a file: class ids or floor(255 p) as integers (H, W), else float32."""
    if suffix == ".npy":
        return np.ascontiguousarray(values, dtype=np.float32)
    if task.activation == "argmax":
        return values.astype(np.uint8 if task.num_classes <= 256 else np.uint16)
    levels: NDArray[np.uint8] = np.floor(values[0] * 255).astype(np.uint8)
    return levels


@dataclass(frozen=True)
class PredictionFiles:
    """Predictions on disk, of this suite or of any other code base.

    Args:
        folder: the folder with one folder per task.
        tasks: those of the protocol that have a folder.
        paths: {task: {image id: file}}.
        manifest: content of `predictions.json`, or None.
        ignored: names of other folders there.
        left_out: a line about each task's folder that holds files which are no predictions.
        options: {task: what was said about its files}.
    """

    folder: Path
    tasks: tuple[Task, ...]
    paths: Mapping[str, Mapping[str, Path]]
    manifest: Mapping[str, Any] | None
    ignored: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    options: Mapping[str, MapOptions] = field(default_factory=dict)
    _decided: dict[str, Encoding] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def find(
        cls, folder: Path, tasks: Sequence[Task], options: Mapping[str, MapOptions] | None = None
    ) -> PredictionFiles:
        """List what is there.

        Args:
            folder: the folder with one folder per task.
            tasks: that may have a folder there.
            options: {task: what its files hold}, from `map_options`.

        Raises:
            FileNotFoundError: no such folder, or no folder of any task in it.
            PredictionFilesError: one image has two files, or the manifest is damaged or of a run that was cut
                off.
        """
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; expected {folder}/<task>/<image id>.png or .npy."
            )
        names = sorted(item.name for item in walk(folder, depth=0) if item.kind == FOLDER)
        found = tuple(task for task in tasks if task.name in names)
        if not found:
            raise FileNotFoundError(
                f"{folder}: holds no folder of a task; expected one or more of "
                f"{', '.join(task.name for task in tasks)}, found {', '.join(names) or 'none'}."
            )
        manifest = read_manifest(folder)
        if manifest is not None and not manifest.get("complete", True):
            raise PredictionFilesError(
                f"{folder}: the run that wrote these predictions was cut off; repeat it with the same "
                "command, it keeps what is there."
            )
        listed = {task.name: _find(folder / task.name) for task in found}
        paths = {name: files.files for name, files in listed.items()}
        ignored = tuple(name for name in names if name not in paths)
        left_out = tuple(text for name, files in listed.items() if (text := files.summary(name)))
        return cls(folder, found, paths, manifest, ignored, left_out, options or {})

    def require(self, images: Sequence[str]) -> None:
        """Refuse folders that do not hold exactly these images, or files of another size than written.

        Raises:
            PredictionFilesError: names the missing, extra and wrong-size files of all tasks.
        """
        problems: list[str] = []
        wanted = {str(relative_path(image)) for image in images}
        sizes = (self.manifest or {}).get("sizes", {})
        for name, files in self.paths.items():
            where = self.folder / name
            problems += _listing(f"{where}: missing", sorted(wanted - set(files)), len(wanted))
            extra = [files[item].name for item in sorted(set(files) - wanted)]
            problems += _listing(f"{where}: not of this split", extra, len(files))
            wrong = []
            for image, size in sizes.items():
                path = files.get(str(relative_path(image)))
                stored = _stored_size(path) if path is not None else None
                if stored is not None and list(stored) != size:
                    wrong.append(f"{path.name} is {by(stored)} instead of {by(size)}")  # type: ignore[union-attr]
            problems += _listing(f"{where}: of another size than {MANIFEST} says", wrong, len(files))
        if problems:
            problems += [f"  {line}" for line in self.left_out]
            raise PredictionFilesError("\n".join(["the predictions do not fit the split:", *problems]))

    def path(self, task: Task, image: str) -> Path:
        """The file of one task and image."""
        return self.paths[task.name][str(relative_path(image))]

    def read(self, task: Task, image: str, size: tuple[int, int]) -> Tensor:
        """A prediction as the task's metric takes it.

        Args:
            task: one of `tasks`.
            image: its id.
            size: (H, W) of the label, which the prediction must have.

        Returns:
            int64 (H, W) of `argmax` tasks, else float32 (C, H, W).

        Raises:
            ValueError: unreadable, another kind of map or another size, or values that are no probabilities
                or too large for float32; names the file. The metric's own check refuses NaN and infinity.
        """
        path = self.path(task, image)
        return prediction_of(task, path, self.encoding(task), size)

    def encoding(self, task: Task) -> Encoding:
        """What the numbers in the files of a task mean, decided once for all of them.

        Raises:
            ValueError: the content allows several meanings; names a file and the option that settles it.
        """
        if task.name not in self._decided:
            options = self.options.get(task.name, MapOptions())
            manifest = self.manifest or {}
            own = (
                "suite" in manifest and manifest.get("format") == "8bit" and task.activation in PROBABILITIES
            )
            if own and options == MapOptions():
                options = MapOptions(encoding="share")  # stated by the writer: floor(255 p)
            paths = list(self.paths[task.name].values())
            self._decided[task.name] = decide_predictions(task, paths, options)
        return self._decided[task.name]


def _find(folder: Path) -> FoundFiles:
    try:
        return find_files(folder, SUFFIXES)
    except ValueError as error:
        raise PredictionFilesError(str(error)) from error


def _listing(what: str, names: Sequence[str], total: int) -> list[str]:
    if not names:
        return []
    rest = f" … and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"  {what} ({len(names)} of {total}): {', '.join(names[:NAMED])}{rest}"]


def _stored_size(path: Path) -> tuple[int, ...] | None:
    """(H, W) from the head of a file, None if it cannot be read (reading it then says why)."""
    try:
        if path.suffix.lower() == ".npy":
            return npy_shape(path)[-2:]
        with path.open("rb") as file:
            header = picture_header(file.read(_HEADER))
        return None if header is None else (header.height, header.width)
    except (DecodeError, OSError):
        return None


def _save(path: Path, values: NDArray[Any]) -> None:
    with atomic_file(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, values, allow_pickle=False)
        else:
            Image.fromarray(values).save(file, format="PNG")
