"""Prediction files as metrics take them; what their numbers mean is decided as for labels, from the set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.data.maps.encoding import SAMPLED, Encoding, decide, spread
from mtvision.data.maps.evidence import Evidence, measure
from mtvision.data.maps.files import Storage, Stored, read_map, read_npy
from mtvision.data.maps.options import BOUNDED, MapOptions, kind_of
from mtvision.data.maps.rules import UndecidedError
from mtvision.metrics.boundary.readers import read_prediction
from mtvision.protocols.tasks import edge

OPTIONS = ("encoding", "scale", "bits")
"""What can be said about prediction files."""


def map_options(given: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, MapOptions]:
    """{task: options} of `{"depth.scale": 1000}`.

    Raises:
        UnknownNameError: an unknown task or option.
        ValueError: an option that does not apply to the task, or a value out of range.
    """
    known = {task.name: task for task in tasks}
    said: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        name, dot, option = key.rpartition(".")
        if not dot:
            raise ValueError(f"--maps {key}: expected TASK.OPTION=VALUE, e.g. {next(iter(known))}.{key}=….")
        look_up("task in --maps", name, known)
        look_up(f"option in --maps of {name}", option, dict.fromkeys(OPTIONS))
        said.setdefault(name, {})[option] = value
    return {
        name: MapOptions.of(values, as_values(known[name]), f"predictions of {name}")
        for name, values in said.items()
    }


def as_values(task: Task) -> Task:
    """The task whose labels are what the task predicts: saliency predicts probabilities, not ids."""
    if task.label == "classes" and task.activation in BOUNDED:
        return replace(task, label="values")
    return task


def decide_predictions(task: Task, paths: Sequence[Path], options: MapOptions) -> Encoding:
    """What the numbers of a task's prediction files mean; class ids and instances need no decision.

    Raises:
        ValueError: the content allows several meanings; names a file and the option that settles it.
    """
    with saying(_by_option(task)):
        return decide_loaded(task, map(_loaded, spread(paths, SAMPLED)), options)


@contextmanager
def saying(how: str) -> Iterator[None]:
    """Add to a message about undecided numbers how they are told what they mean.

    Raises:
        ValueError: in the place of `UndecidedError`.
    """
    try:
        yield
    except UndecidedError as error:
        raise ValueError(f"{error} {how}") from None


def _by_option(task: Task) -> str:
    return f"Options of predictions are given as --maps {task.name}.{_option(task)}."


def decide_loaded(
    task: Task, maps: Iterable[tuple[Path, NDArray[Any], Storage] | None], options: MapOptions
) -> Encoding:
    """As `decide_predictions`, of maps that are in memory.

    Args:
        task: what they are predictions of.
        maps: a name for messages, the numbers, and how they are stored; None is passed over.
        options: what was said by hand.

    Raises:
        UndecidedError: the content allows several meanings.
    """
    viewed = as_values(task)
    found: dict[Storage, Evidence] = {}
    for item in maps if kind_of(viewed) not in ("ids", "binary") else ():
        part = None if item is None else _evidence(viewed, *item, options)
        if part is not None:
            earlier = found.get(part.storage)
            found[part.storage] = part if earlier is None else earlier + part
    return decide(viewed, [found[storage] for storage in sorted(found)], options)


def prediction_of(task: Task, path: Path, encoding: Encoding, size: tuple[int, int]) -> Tensor:
    """int64 (H, W) of `argmax` tasks, else float32 (C, H, W).

    Args:
        task: what the file is a prediction of.
        path: the file.
        encoding: what its numbers mean.
        size: (H, W) that it must have.

    Raises:
        ValueError: unreadable, another kind of map or another size, or values that are no probabilities
            or too large for float32; names the file. The metric's own check refuses NaN and infinity.
    """
    with saying(_by_option(task)):
        return prediction_from(task, path, *_load(path), encoding, size)


def prediction_from(
    task: Task, path: Path, values: NDArray[Any], storage: Storage, encoding: Encoding, size: tuple[int, int]
) -> Tensor:
    """As `prediction_of`, of a map that is in memory; `path` is its name in messages."""
    if task.activation == "argmax":
        if values.ndim != 2 or values.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: {task.name} takes class ids, integers (H, W), found {describe(values)}."
            )
        if storage.lossy:
            raise ValueError(
                f"{path}: {task.name} takes class ids stored without loss, found {storage}, which changes "
                "ids. Write PNG or NPY."
            )
        result = torch.from_numpy(values.astype(np.int64))
    else:
        if values.dtype.kind == "f" and encoding.options == MapOptions():
            planes = _planes(values, storage, encoding.task.label_channels)
            if planes is not None:
                encoding.require_alike(Stored(planes, storage), path)
            real = _real(path, values)
        else:
            real = _decoded(task, path, values, storage, encoding)
        result = torch.from_numpy(real)
        result = result[None] if result.ndim == 2 else result
        if result.ndim != 3:
            raise ValueError(f"{path}: {task.name} takes (C, H, W) or (H, W), found {describe(values)}.")
    if tuple(result.shape[-2:]) != tuple(size):
        raise ValueError(f"{path}: the map is {describe(values)}, but the label {by(size)} (height x width).")
    outside = torch.isfinite(result) & ((result < 0) | (result > 1))
    if task.activation in BOUNDED and bool(outside.any()):
        raise ValueError(
            f"{path}: {task.name} takes probabilities in 0..1, found {float(result[outside][0]):g}; "
            "apply the sigmoid to logits, divide 8-bit values by 255."
        )
    return result


class BoundaryReader:
    """Reads boundary maps of one folder, whose integers mean the same in all files; picklable.

    Args:
        paths: all prediction files.
        options: what was said by hand.

    Raises:
        ValueError: the content allows several meanings; names a file.
    """

    def __init__(self, paths: Sequence[Path], options: MapOptions | None = None) -> None:
        maps = [path for path in paths if path.suffix.lower() != ".mat"]
        self._said = options not in (None, MapOptions())
        self._encoding = decide_predictions(edge(), maps, options or MapOptions())
        self.statement = self._encoding.statement()

    def __call__(self, path: Path) -> NDArray[np.floating]:
        """A boundary map (H, W) in 0..1, float64.

        Raises:
            ValueError: as `mtvision.metrics.boundary.read_prediction`, or another kind of file than the rest.
        """
        if path.suffix.lower() == ".mat":
            return read_prediction(path)
        values, storage = _load(path)
        planes = _planes(values, storage, 1)
        if planes is None or values.dtype.kind not in ("iuf" if self._said else "iu"):
            return read_prediction(path)
        rule = self._encoding.rule(storage, path)
        scaled = self._encoding.scaled(Stored(planes, storage), path)  # refuses what contradicts the others
        if self._said:
            return scaled[..., 0].astype(np.float64)
        top = max(rule.levels) if rule.meaning == "mask" else rule.divisor
        return np.asarray(planes[..., 0].astype(np.float64) / (top or 1.0))


def describe(values: NDArray[Any]) -> str:
    """Sides and type of an array."""
    return f"{by(values.shape)} of {values.dtype}"


def by(size: Sequence[int]) -> str:
    """`2x3`."""
    return "x".join(str(side) for side in size) or "a single number"


def _decoded(
    task: Task, path: Path, values: NDArray[Any], storage: Storage, encoding: Encoding
) -> NDArray[np.float32]:
    bounded = task.activation in BOUNDED
    said = encoding.options != MapOptions()
    planes = _planes(values, storage, encoding.task.label_channels)
    if planes is None or values.dtype.kind not in "iuf" or not (bounded or said):
        wanted = "8- or 16-bit gray images or float maps" if bounded else "float maps (.npy)"
        problem = f"{path}: {task.name} takes {wanted}, found {describe(values)}."
        if bounded or said:
            raise ValueError(problem)
        raise UndecidedError(f"{problem} Say what others mean.")
    scaled = encoding.scaled(Stored(planes, storage), path)
    return np.ascontiguousarray(np.moveaxis(scaled, 2, 0))


def _option(task: Task) -> str:
    return "encoding=shifted" if task.geometry == "direction" else "scale=1000"


def _loaded(path: Path) -> tuple[Path, NDArray[Any], Storage] | None:
    """A file's numbers; None where reading it again will say what is wrong with it."""
    try:
        return (path, *_load(path))
    except ValueError:
        return None


def _evidence(
    task: Task, path: Path, values: NDArray[Any], storage: Storage, options: MapOptions
) -> Evidence | None:
    """What a map holds; None where its decoding will say what is wrong with it."""
    planes = _planes(values, storage, task.label_channels)
    kind = kind_of(task)
    # integers of other tasks are refused and real probabilities checked file by file, if nothing is said
    wanted = "iuf" if options != MapOptions() else "iu" if kind == "share" else "f"
    if planes is None or values.dtype.kind not in wanted:
        return None
    return measure(path, storage, planes, (planes == 0).all(axis=2) if kind == "direction" else None)


def _planes(values: NDArray[Any], storage: Storage, channels: int) -> NDArray[Any] | None:
    """(H, W, C) of a file's array, None where it has another number of channels."""
    if values.ndim == 2:
        values = values[..., None]
    elif values.ndim == 3 and storage.is_array:
        values = np.moveaxis(values, 0, 2)
    return values if values.ndim == 3 and values.shape[2] == channels else None


def _load(path: Path) -> tuple[NDArray[Any], Storage]:
    if path.suffix.lower() == ".npy":
        values = read_npy(path)
        return values, Storage("NPY", values.dtype.kind, 8 * values.dtype.itemsize)
    stored = read_map(path, "ids")
    values = stored.values[..., 0] if stored.values.shape[2] == 1 else stored.values
    return values.astype(bool) if stored.storage.bits == 1 else values, stored.storage


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
