"""From a label or prediction map to an RGB picture, by `Task.colours`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mtvision.core.instances import BASE
from mtvision.core.registry import COLOURS
from mtvision.core.task import IGNORE, Task

Picture = NDArray[np.uint8]
"""RGB, (H, W, 3)."""
Colour = tuple[int, int, int]
Range = tuple[float, float]

NO_LABEL: Colour = (207, 210, 216)
"""Light grey: pixels without a label, in maps of every kind."""
BACKGROUND: Colour = (38, 40, 46)
"""Nearly black: a class called "background" in a generated palette."""
_GOLDEN = 0.6180339887498949
DEPTH_COLOURS = cv2.COLORMAP_INFERNO


def to_array(values: Any) -> NDArray[Any]:
    """A NumPy view of an array or tensor (moved to the CPU if needed), for anything a label may be."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def palette(task: Task) -> tuple[Colour, ...]:
    """One colour per class: the task's own palette, else a generated one.

    In a generated palette a first class called "background" is nearly black.
    """
    if task.palette:
        return task.palette
    if task.class_names and task.class_names[0] == "background":
        return (BACKGROUND, *generate_palette(task.num_classes - 1))
    return generate_palette(task.num_classes)


def generate_palette(count: int) -> tuple[Colour, ...]:
    """`count` colours, each as far as possible from all before it, the same on every machine.

    Farthest-point choice in OKLab (Ottosson 2020), a space of perceived colour, among colours neither neon
    nor pale. A palette begins with every shorter palette.
    """
    return _farthest_colours(max(64, count))[:count]


@lru_cache(maxsize=4)
def _farthest_colours(count: int) -> tuple[Colour, ...]:
    lab, rgb = _candidates()
    chosen = [int(np.argmin(np.linalg.norm(lab - np.array([0.62, -0.04, -0.14]), axis=1)))]  # a calm blue
    avoid = _oklab(np.array([NO_LABEL, BACKGROUND], dtype=np.float64) / 255)
    distance = np.linalg.norm(lab[:, None] - avoid[None], axis=2).min(axis=1)
    for _ in range(count):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(np.round(distance, 9))))  # rounded: ties break alike everywhere
    return tuple((int(r), int(g), int(b)) for r, g, b in rgb[chosen[:count]])


def _candidates() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Colours of medium lightness and chroma: OKLab (N, 3) and 8-bit RGB (N, 3)."""
    levels = np.arange(16, 256, 12)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(rgb / 255)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    kept = (lab[:, 0] > 0.42) & (lab[:, 0] < 0.88) & (chroma > 0.05) & (chroma < 0.165)
    return lab[kept], rgb[kept]


def _oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab of sRGB values in 0..1, last axis of size 3."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        linear
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    mixed: NDArray[np.float64] = (
        cones
        @ np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        ).T
    )
    return mixed


def value_range(*maps: Any) -> Range:
    """(low, high) that pictures of these real-valued maps should share; outliers beyond 0.5 % are cut off.

    Maps without any finite value give (0, 1); a constant map gets a range of width 1 around it.
    """
    finite = [array[np.isfinite(array)].ravel() for array in map(to_array, maps)]
    values = np.concatenate(finite) if finite else np.empty(0)
    if not values.size:
        return (0.0, 1.0)
    low, high = (float(item) for item in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def colourise(task: Task, values: Any, *, limits: Range | None = None) -> Picture:
    """Draw a label or prediction of a task.

    Args:
        task: its `colours` decides how; its `label` how "no label" looks.
        values: array or tensor: class ids (H, W), or real values (C, H, W) or (H, W).
        limits: (low, high) of real values mapped to the ends of `depth` and `values`, so that several
            pictures can be compared. By default they are those of this map alone. `depth` draws a positive
            range over a factor of more than 10 logarithmically. Ignored by the other kinds.

    Returns:
        RGB (H, W, 3). `palette`: the class's colour. `depth`: inferno, near dark and far bright. `normals`:
        255 (n + 1) / 2 of the unit vector. `gray`: 0 black, 1 (or the last class) white. `values`: one
        channel from black to white, two as hue and saturation, of more the first three as red, green, blue.
        `instances`: a shade of the class's colour per instance. Pixels without a label (255 in class maps,
        NaN in real ones) are `NO_LABEL`. A function of your own is called with task, array and limits;
        `@COLOURS.register_module("name")` makes it a value of `colours`.

        Colours that cannot draw the task's kind of map give way to those that can, see `drawn_as`.

    Raises:
        UnknownNameError: no colours have that name.
        ValueError: a map of another shape, or with a class id that the task does not have.
    """
    array = to_array(values)
    no_label = unlabelled(task, array)
    picture: Picture = COLOURS[drawn_as(task)](task, array, limits)
    picture[no_label] = NO_LABEL
    return picture


def drawn_as(task: Task) -> str:
    """The colours that a task is drawn in: its own, or what suits its maps where those cannot draw them."""
    real = task.label == "values"
    fits = {
        "palette": task.label == "classes" and task.activation not in ("sigmoid", "foreground"),
        "instances": task.label == "instances",
        "depth": real and task.label_channels == 1,
        "normals": real and task.label_channels == 3,
        "values": real,
    }
    if fits.get(task.colours, True):
        return task.colours
    if real or task.label == "instances":
        return "values" if real else "instances"
    return "palette" if fits["palette"] else "gray"


def unlabelled(task: Task, values: Any) -> NDArray[np.bool_]:
    """(H, W), True where a map has no label: 255 in integer maps, NaN or infinite in real ones."""
    array = to_array(values)
    if array.ndim == 2:
        if np.issubdtype(array.dtype, np.integer):
            return np.asarray(array == IGNORE)
        return np.asarray(~np.isfinite(array))
    if array.ndim != 3:
        raise ValueError(f"{task.name}: a map is (H, W) or (C, H, W), got shape {array.shape}.")
    return np.asarray(~np.isfinite(array).all(axis=0))


def _plane(task: Task, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3 and array.shape[0] == 1:
        return np.asarray(array[0])
    if array.ndim != 2:
        raise ValueError(f"{task.name}: expected one plane, (H, W) or (1, H, W), got shape {array.shape}.")
    return array


@COLOURS.register_module("palette")
def _draw_palette(task: Task, array: NDArray[Any], _: Range | None) -> Picture:
    """Every class in its colour."""
    ids = _plane(task, array)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{task.name}: class maps hold integers, got {ids.dtype}; take the argmax first.")
    colours = palette(task)
    table = np.full((256, 3), NO_LABEL, dtype=np.uint8)
    table[: len(colours)] = colours
    wrong = ids[((ids < 0) | (ids >= len(colours))) & (ids != IGNORE)]
    if wrong.size:
        raise ValueError(
            f"{task.name}: class id {int(wrong.flat[0])} in a map, but there are {len(colours)} classes "
            f"(and {IGNORE} for no label)."
        )
    return np.asarray(table[ids], dtype=np.uint8)


def is_logarithmic(limits: Range) -> bool:
    """Whether depth colours follow the logarithm: a positive range over a factor of more than 10."""
    return limits[0] > 0 and limits[1] / limits[0] > 10


def levels(values: NDArray[Any], limits: Range, *, logarithmic: bool | None = None) -> NDArray[np.float64]:
    """Where values lie between the limits: 0 at the lower, 1 at the upper; linear or logarithmic.

    Args:
        values: any shape.
        limits: (low, high).
        logarithmic: which of the two; None = as depth colours, see `is_logarithmic`.
    """
    low, high = limits
    if is_logarithmic(limits) if logarithmic is None else logarithmic:
        low, high = float(np.log(low)), float(np.log(high))
        values = np.log(np.maximum(values, limits[0] * 1e-3))
    return np.asarray((values - low) / max(high - low, 1e-12), dtype=np.float64)


def depth_colours(values: NDArray[Any]) -> Picture:
    """The depth colours of levels in 0..1, shape (H, W)."""
    index = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(index, DEPTH_COLOURS)[..., ::-1], dtype=np.uint8)


@COLOURS.register_module("depth")
def _draw_depth(task: Task, array: NDArray[Any], limits: Range | None) -> Picture:
    """Near to far, along a colour map."""
    plane = _plane(task, array).astype(np.float64)
    return depth_colours(np.nan_to_num(levels(plane, value_range(plane) if limits is None else limits)))


@COLOURS.register_module("normals")
def _draw_normals(task: Task, array: NDArray[Any], _: Range | None) -> Picture:
    """The three components of unit vectors as red, green and blue."""
    if array.ndim != 3 or array.shape[0] != 3:
        raise ValueError(f"{task.name}: normals are (3, H, W), got shape {array.shape}.")
    scaled = np.round((np.nan_to_num(array).astype(np.float64) + 1) * 127.5)
    return np.ascontiguousarray(np.clip(scaled, 0, 255).astype(np.uint8).transpose(1, 2, 0))


@COLOURS.register_module("gray")
def _draw_gray(task: Task, array: NDArray[Any], _: Range | None) -> Picture:
    """Values in 0..1 as shades of gray; three channels as red, green and blue, others by their mean."""
    if array.ndim == 3 and array.shape[0] == 3:
        planes = [_draw_gray(task, plane, None)[..., :1] for plane in array]
        return np.concatenate(planes, axis=2)
    plane = array.mean(axis=0) if array.ndim == 3 else _plane(task, array)
    if np.issubdtype(plane.dtype, np.integer):
        plane = plane / max(task.num_classes - 1, 1)
    shades = np.round(np.clip(np.nan_to_num(plane), 0, 1) * 255).astype(np.uint8)
    return np.repeat(shades[..., None], 3, axis=2)


@COLOURS.register_module("share")
def _draw_share(task: Task, array: NDArray[Any], _: Range | None) -> Picture:
    """Channel 0 as shades of gray; the others are single annotators."""
    return _draw_gray(task, array[0] if array.ndim == 3 else array, None)


@COLOURS.register_module("values")
def _draw_values(_: Task, array: NDArray[Any], limits: Range | None) -> Picture:
    """Any number of channels, between limits that come from the data."""
    planes = np.nan_to_num(array[None] if array.ndim == 2 else array).astype(np.float64)
    limits = value_limits(len(planes), value_range(array) if limits is None else limits)
    if len(planes) == 2:
        return wheel_colours(planes, limits[1])
    shares = np.clip((planes - limits[0]) / (limits[1] - limits[0]), 0, 1)
    shades = np.round(shares * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.repeat(shades, 3, axis=2) if len(planes) == 1 else shades[..., :3])


def value_limits(channels: int, limits: Range) -> Range:
    """The limits that `values` are drawn between.

    Args:
        channels: of the map.
        limits: of its values. Colours in 0..1 are drawn as they are; of two channels the lower limit is 0.
    """
    low, high = limits
    if channels == 2:
        return (0.0, max(abs(low), abs(high), 1e-12))
    return (0.0, 1.0) if channels > 2 and low >= 0 and high <= 1 else (low, high)


def wheel_colours(planes: NDArray[np.float64], longest: float) -> Picture:
    """Vectors (2, H, W), x to the right and y down: the direction as hue, the length as saturation."""
    length = np.clip(np.hypot(*planes) / longest, 0, 1)
    hue = np.degrees(np.arctan2(planes[1], planes[0])) % 360
    colours = np.stack([hue, length, np.ones_like(hue)], axis=-1).astype(np.float32)
    return np.ascontiguousarray(np.round(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB) * 255), dtype=np.uint8)


def class_map(task: Task, values: Any) -> NDArray[Any]:
    """What a legend of classes lists: class ids (H, W), 255 = none; of instance maps, the thing classes."""
    array = to_array(values)
    if task.colours != "instances":
        return array
    ids = _instance_ids(task, array)
    return np.where(ids >= BASE, ids // BASE - 1, IGNORE)


def _instance_ids(task: Task, array: NDArray[Any]) -> NDArray[Any]:
    """(H, W) of a label (H, W) or a prediction (2, H, W), whose first plane holds ids."""
    if array.ndim == 3 and array.shape[0] == 2:
        array = array[0]
    if array.ndim != 2:
        raise ValueError(f"{task.name}: instances are (H, W) or (2, H, W), got shape {array.shape}.")
    return np.asarray(np.nan_to_num(array).astype(np.int64))


@COLOURS.register_module("instances")
def _draw_instances(task: Task, array: NDArray[Any], _: Range | None) -> Picture:
    """The first instance in its class's colour, the others in shades of it."""
    ids = _instance_ids(task, array)
    picture = np.full((*ids.shape, 3), BACKGROUND, dtype=np.uint8)
    colours = np.array(palette(task), dtype=np.float64)
    for item in np.unique(ids[ids >= BASE]).tolist():
        category, number = item // BASE - 1, item % BASE
        if category >= len(colours):
            raise ValueError(
                f"{task.name}: class id {category} in a map, but there are {len(colours)} classes."
            )
        level = (0.5 + number * _GOLDEN) % 1  # 0.5: the class's colour, 0: half as bright, 1: half white
        end = np.full(3, 255.0) if level > 0.5 else np.zeros(3)
        mixed = colours[category] + (end - colours[category]) * abs(level - 0.5)
        picture[ids == item] = np.round(mixed)
    return picture


def classes_present(task: Task, maps: Sequence[Any]) -> list[int]:
    """Class ids that occur in any of the maps, the largest area first."""
    counts = np.zeros(task.num_classes, dtype=np.int64)
    for array in (class_map(task, item) for item in maps):
        ids = array[(array != IGNORE) & (array >= 0) & (array < task.num_classes)].astype(np.int64)
        counts += np.bincount(ids.ravel(), minlength=task.num_classes)[: task.num_classes]
    return [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
