"""Options for reading one folder of label files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.registry import DERIVATIONS
from mtvision.core.task import IGNORE, Task
from mtvision.core.values import NameIn
from mtvision.data.decode import (
    DecodeError,
    read_depth_png,
    read_label_png,
    read_normals_png,
    read_npy,
)
from mtvision.data.value_files import SUFFIXES, read_values

Array = NDArray[Any]
_FOR_CLASSES = ("ids", "encoding")
_FOR_DEPTH = ("bits",)
_FOR_VALUES = ("scale",)
_FOR_DIRECTIONS = ("axes",)
CLASS_SUFFIXES = (".png", ".npy")


@dataclass(frozen=True, kw_only=True)
class FolderLabel:
    """One entry of `FolderDataset(labels=...)`.

    Args:
        folder: folder of the files, relative to the root; `{split}` stands for the split's name.
        suffix: what follows the image's name in the label's, e.g. `_mask.png`; None = `.png` or `.npy`, of
            real values also `.npz`, `.tif` or `.tiff`.
        ignore: ids on disk that mean "no label" (besides 255); of real values, the values where all channels
            of a pixel hold one.
        ids: class maps: {id on disk: class id}; other ids are an error.
        encoding: class maps: `ids`, or `mask` = a picture whose upper half of the range is class 1, the rest
            class 0. None = `ids`, refusing what looks like a mask.
        scale: real values: units on disk per unit. Depth and disparity need it for integers (units per metre
            or pixel). Otherwise None = 8 and 16 bits become 0..1, other values stay.
        bits: depth and disparity as PNG: bits per pixel.
        axes: directions: what the file's channels hold, each `x`, `y` or `z` with an optional minus sign; x
            to the right, y up, z towards the camera.
        derive: a function of `mtvision.data.derive` instead of files.
        source: task whose class map `derive` takes.
        ignore_void: with `derive`: no label beside pixels without class.
    """

    folder: str | None = None
    suffix: str | None = None
    ignore: float | Sequence[float] = ()
    ids: Mapping[int, int] | None = None
    encoding: Literal["ids", "mask"] | None = None
    scale: float | None = None
    bits: int | None = None
    axes: Sequence[str] | None = None
    derive: Annotated[str, NameIn("DERIVATIONS")] | None = None
    source: str | None = None
    ignore_void: bool = False

    @classmethod
    def of(cls, config: str | Mapping[str, Any], task: Task) -> FolderLabel:
        """From a folder's name or a dict of options.

        Raises:
            UnknownNameError: unknown option or derivation.
            ValueError: options that contradict one another or the task.
        """
        options: dict[str, Any] = {"folder": config} if isinstance(config, str) else dict(config)
        known = [item.name for item in fields(cls)]
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of the {task.name} labels", name, known)
        label = cls(**options)
        label._check(task, options)
        return label

    @property
    def _ignored(self) -> tuple[float, ...]:
        return (self.ignore,) if isinstance(self.ignore, int | float) else tuple(self.ignore)

    def _check(self, task: Task, options: Mapping[str, Any]) -> None:
        where = f"labels of {task.name}"
        if (self.folder is None) == (self.derive is None):
            raise ValueError(f"{where}: give either folder= or derive= (with source=), got {dict(options)}.")
        if self.derive is not None:
            look_up(f"derivation for the {where}", self.derive, DERIVATIONS)
            if self.source is None:
                raise ValueError(f"{where}: derive='{self.derive}' needs source=, the task it is made from.")
            if task.label != "values" or task.geometry != "plain":
                raise ValueError(f"{where}: '{self.derive}' makes a map of 0 and 1, which this task is not.")
            return
        lengths = task.label == "values" and task.geometry != "direction"
        suits = {
            "ignore": lengths or task.label == "classes",
            **dict.fromkeys(_FOR_VALUES, lengths),
            **dict.fromkeys(_FOR_CLASSES, task.label == "classes"),
            **dict.fromkeys(_FOR_DEPTH, task.geometry in ("depth", "disparity")),
            **dict.fromkeys(_FOR_DIRECTIONS, task.geometry == "direction"),
        }
        for name in options:
            if not suits.get(name, True):
                raise ValueError(f"{where}: the option '{name}' does not apply to this kind of map.")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"{where}: scale must be above 0, units on disk per unit, got {self.scale}.")
        if self.encoding is not None:
            look_up(f"encoding of the {where}", self.encoding, {"ids": 0, "mask": 0})
        if self.axes is not None and sorted(axis.strip("-") for axis in self.axes) != ["x", "y", "z"]:
            raise ValueError(
                f"{where}: axes must name x, y and z once each, e.g. ('-x', 'z', 'y'), got {self.axes}."
            )

    def read(self, path: Path, task: Task) -> Array:
        """Decode one file into the suite's convention.

        Raises:
            DecodeError: the file is not what the options say; names it and the remedy.
        """
        if task.label == "classes":
            return self._read_classes(path, task)
        if task.label == "instances":
            return _read_instances(path)
        if task.geometry == "direction":
            return self._read_directions(path, task)
        if task.geometry == "plain":
            return read_values(path, task, scale=self.scale, ignore=self._ignored)
        return self._read_depth(path, task)

    @staticmethod
    def suffixes(task: Task) -> tuple[str, ...]:
        """Endings of files that a task's labels may have."""
        return SUFFIXES if task.label == "values" else CLASS_SUFFIXES

    def _read_classes(self, path: Path, task: Task) -> Array:
        stored = read_npy(path) if path.suffix == ".npy" else read_label_png(path)
        stored = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
        if self.encoding == "mask":
            return (stored > _half(stored)).astype(np.uint8)
        if not np.issubdtype(stored.dtype, np.integer):
            whole = np.rint(stored)
            if not (stored == whole).all():
                raise DecodeError(f"{path}: class ids must be whole numbers, found fractions.")
            stored = whole.astype(np.int64)
        if self.encoding is None and task.activation in ("sigmoid", "foreground"):
            _refuse_mask(path, stored)
        return self._map_ids(path, stored)

    def _map_ids(self, path: Path, stored: Array) -> Array:
        if self.ids is None and not self._ignored:
            return stored
        missing = np.isin(stored, [*self._ignored, IGNORE])
        if self.ids is None:
            wide = stored if stored.dtype != np.int8 else stored.astype(np.int16)
            return np.where(missing, np.asarray(IGNORE, dtype=wide.dtype), wide)
        result = np.full(stored.shape, IGNORE, dtype=np.int64)
        unknown = ~missing
        for source, target in self.ids.items():
            here = stored == int(source)
            result[here] = int(target)
            unknown &= ~here
        if unknown.any():
            raise DecodeError(
                f"{path}: id {int(stored[unknown][0])} has no entry in ids=; add it there or to ignore=."
            )
        return result

    def _read_depth(self, path: Path, task: Task) -> Array:
        if path.suffix.lower() in SUFFIXES[1:]:
            depth = read_values(
                path, task, scale=self.scale, ignore=self._ignored, unit="metre (1000 for millimetres)"
            )
            return np.where(depth > 0, depth, np.float32(np.nan))
        if self.scale is None:
            raise DecodeError(
                f"{path}: depth in a PNG needs scale=, the units on disk per metre (1000 for millimetres)."
            )
        depth = read_depth_png(path, self.scale, bits=16 if self.bits is None else self.bits)
        if self._ignored:
            depth[np.isin(read_label_png(path), self._ignored)] = np.nan
        return depth

    def _read_directions(self, path: Path, task: Task) -> Array:
        as_numbers = path.suffix.lower() in SUFFIXES[1:]
        vectors = read_values(path, task, scale=1.0) if as_numbers else read_normals_png(path)
        if vectors.shape[2] != 3:
            raise DecodeError(f"{path}: normals must have shape (H, W, 3), got {vectors.shape}.")
        if self.axes is not None:
            planes = {
                axis.strip("-"): (-1 if axis.startswith("-") else 1) * vectors[..., channel]
                for channel, axis in enumerate(self.axes)
            }
            vectors = np.stack([planes["x"], planes["y"], planes["z"]], axis=-1).astype(np.float32)
        valid = vectors.any(axis=2, keepdims=True) & np.isfinite(vectors).all(axis=2, keepdims=True)
        return vectors if valid.all() else np.where(valid, vectors, np.float32(np.nan))


def _half(stored: Array) -> float:
    return np.iinfo(stored.dtype).max / 2 if np.issubdtype(stored.dtype, np.integer) else 0.5


def _refuse_mask(path: Path, stored: Array) -> None:
    found = set(np.unique(stored).tolist())
    if IGNORE in found and 1 not in found:
        raise DecodeError(
            f"{path}: holds 255 and no 1. If 255 is the foreground, say encoding='mask'; if it means \"no "
            'label", '
            "say encoding='ids'."
        )


def _read_instances(path: Path) -> Array:
    """Ids as `mtvision.core.instances.encode_instances` makes them, in a 16-bit PNG or a file of NumPy's."""
    ids = read_npy(path) if path.suffix == ".npy" else read_label_png(path)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise DecodeError(
            f"{path}: instances are an integer map (H, W), found {ids.dtype} {ids.shape}. Write ids with "
            "mtvision.core.instances.encode_instances."
        )
    return ids.astype(np.int32)
