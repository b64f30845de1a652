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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import mtvision
from mtvision.core.naming import ReportedError, look_up
from mtvision.core.task import Task
from mtvision.evaluation.formats import FORMATS, Format
from mtvision.runtime.atomic import atomic_file, write_text
from mtvision.runtime.launch import gather, is_main_process

MANIFEST = "predictions.json"
VERSION = 1
SUFFIXES = (".png", ".npy")
PROBABILITIES = ("sigmoid", "foreground")
"""Activations whose predictions are probabilities in 0..1, which fit into 8-bit images."""
UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError)
"""What NumPy and Pillow raise for damaged files."""
NAMED = 5
"""How many files of one kind an error lists."""


class PredictionFilesError(ReportedError, ValueError):
    """Files are missing, too many, unreadable, of another size or not to be scored; the message lists all."""


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
            path = self.folder / task.name / f"{_relative(image)}{suffix}"
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
            for name in earlier.get("tasks", {}):
                for path in _files(self.folder / name):
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
    """

    folder: Path
    tasks: tuple[Task, ...]
    paths: Mapping[str, Mapping[str, Path]]
    manifest: Mapping[str, Any] | None
    ignored: tuple[str, ...]

    @classmethod
    def find(cls, folder: Path, tasks: Sequence[Task]) -> PredictionFiles:
        """List what is there.

        Raises:
            FileNotFoundError: no such folder, or no folder of any task in it.
            PredictionFilesError: one image has two files, or the manifest is damaged or of a run that was cut
                off.
        """
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; expected {folder}/<task>/<image id>.png or .npy."
            )
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
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
        paths = {task.name: _by_id(folder / task.name) for task in found}
        ignored = tuple(name for name in names if name not in paths)
        return cls(folder, found, paths, manifest, ignored)

    def require(self, images: Sequence[str]) -> None:
        """Refuse folders that do not hold exactly these images, or files of another size than written.

        Raises:
            PredictionFilesError: names the missing, extra and wrong-size files of all tasks.
        """
        problems: list[str] = []
        wanted = {str(_relative(image)) for image in images}
        sizes = (self.manifest or {}).get("sizes", {})
        for name, files in self.paths.items():
            where = self.folder / name
            problems += _listing(f"{where}: missing", sorted(wanted - set(files)), len(wanted))
            extra = [files[item].name for item in sorted(set(files) - wanted)]
            problems += _listing(f"{where}: not of this split", extra, len(files))
            wrong = []
            for image, size in sizes.items():
                path = files.get(str(_relative(image)))
                stored = _stored_size(path) if path is not None else None
                if stored is not None and list(stored) != size:
                    wrong.append(f"{path.name} is {_by(stored)} instead of {_by(size)}")  # type: ignore[union-attr]
            problems += _listing(f"{where}: of another size than the manifest says", wrong, len(files))
        if problems:
            raise PredictionFilesError("\n".join(["the predictions do not fit the split:", *problems]))

    def path(self, task: Task, image: str) -> Path:
        """The file of one task and image."""
        return self.paths[task.name][str(_relative(image))]

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
        values = _load(path)
        if task.activation == "argmax":
            if values.ndim != 2 or values.dtype.kind not in "iu":
                raise ValueError(
                    f"{path}: {task.name} takes class ids, integers (H, W), found {_describe(values)}."
                )
            result = torch.from_numpy(values.astype(np.int64))
        else:
            real = _real(path, values) if values.dtype.kind == "f" else _probabilities(path, task, values)
            result = torch.from_numpy(real)
            result = result[None] if result.ndim == 2 else result
            if result.ndim != 3:
                raise ValueError(f"{path}: {task.name} takes (C, H, W) or (H, W), found {_describe(values)}.")
        if tuple(result.shape[-2:]) != tuple(size):
            raise ValueError(
                f"{path}: the map is {_describe(values)}, but the label {_by(size)} (height x width)."
            )
        outside = torch.isfinite(result) & ((result < 0) | (result > 1))
        if task.activation in PROBABILITIES and bool(outside.any()):
            raise ValueError(
                f"{path}: {task.name} takes probabilities in 0..1, found {float(result[outside][0]):g}; "
                "apply the sigmoid to logits, divide 8-bit values by 255."
            )
        return result


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Content of `predictions.json`, None if there is none.

    Raises:
        PredictionFilesError: it is no JSON object, or of a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PredictionFilesError(
            f"{path}: not JSON ({error}); delete it to score the files alone."
        ) from error
    if not isinstance(content, dict) or int(content.get("version", VERSION)) > VERSION:
        raise PredictionFilesError(f"{path}: not a manifest of version {VERSION} or older; update mtvision.")
    return content


def _relative(image: str) -> PurePosixPath:
    path = PurePosixPath(image)
    if path.is_absolute() or not path.parts or any(part in (".", "..") for part in path.parts):
        raise ValueError(f"the image id {image!r} cannot be a file name inside a folder.")
    return path


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path


def _by_id(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        name = name.removesuffix(path.suffix) if path.suffix in SUFFIXES else name
        if name in found:
            raise PredictionFilesError(
                f"{folder}: both {found[name].name} and {path.name} exist; keep one per image."
            )
        found[name] = path
    return found


def _listing(what: str, names: Sequence[str], total: int) -> list[str]:
    if not names:
        return []
    rest = f" … and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"  {what} ({len(names)} of {total}): {', '.join(names[:NAMED])}{rest}"]


def _by(size: Sequence[int]) -> str:
    return "x".join(str(side) for side in size) or "a single number"


def _describe(values: NDArray[Any]) -> str:
    return f"{_by(values.shape)} of {values.dtype}"


def _stored_size(path: Path) -> tuple[int, ...] | None:
    """(H, W) from the head of a file, None if it cannot be read (reading it then says why)."""
    try:
        if path.suffix == ".npy":
            return tuple(_array(path, mmap_mode="r").shape[-2:])
        with Image.open(path) as picture:
            return (picture.height, picture.width)
    except UNREADABLE:
        return None


def _load(path: Path) -> NDArray[Any]:
    try:
        if path.suffix == ".npy":
            return _array(path)
        with Image.open(path) as picture:
            return np.array(picture)
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read ({error}).") from error


def _array(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    values = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise ValueError("an archive of arrays, expected one array as `numpy.save` writes it")
    return values


def _real(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        result: NDArray[np.float32] = values.astype(np.float32)
    beyond = np.isinf(result) & np.isfinite(values)
    if beyond.any():
        raise ValueError(
            f"{path}: found {values[beyond][0]:g}, expected values that fit into float32. Look at the code "
            "that wrote the file."
        )
    return result


def _probabilities(path: Path, task: Task, values: NDArray[Any]) -> NDArray[np.float32]:
    if task.activation not in PROBABILITIES or values.dtype not in (np.uint8, np.uint16) or values.ndim != 2:
        raise ValueError(
            f"{path}: {task.name} takes "
            + (
                "8- or 16-bit gray images or float maps"
                if task.activation in PROBABILITIES
                else "float maps (.npy)"
            )
            + f", found {_describe(values)}."
        )
    return (values / np.iinfo(values.dtype).max).astype(np.float32)


def _save(path: Path, values: NDArray[Any]) -> None:
    with atomic_file(path) as file:
        if path.suffix == ".npy":
            np.save(file, values, allow_pickle=False)
        else:
            Image.fromarray(values).save(file, format="PNG")
