"""Panels: an image beside all its maps, and samples of a data set below one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD, Sample
from mtvision.core.task import Task
from mtvision.visualize.colours import (
    NO_LABEL,
    Picture,
    Range,
    colourise,
    drawn_as,
    to_array,
    unlabelled,
    value_range,
)
from mtvision.visualize.drawing import (
    FAINT,
    canvas,
    framed,
    hatch,
    pad,
    place,
    resized,
    sideways,
    stack,
    text_line,
    write,
)
from mtvision.visualize.legends import legend

GAP = 10
MARGIN = 14
TITLE = 15
SMALL = 12
MIN_TILE, MAX_TILE = 256, 448
"""Widths that images are enlarged to (by a whole factor) or reduced to."""


def denormalise(image: Any) -> Picture:
    """The picture behind a network's input.

    Args:
        image: float (3, H, W), normalised with `IMAGE_MEAN` and `IMAGE_STD`; or uint8 (H, W, 3) RGB, which is
            returned as it is.

    Raises:
        ValueError: neither of the two.
    """
    array = to_array(image)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        return array
    if np.issubdtype(array.dtype, np.floating) and array.ndim == 3 and array.shape[0] == 3:
        values = array.transpose(1, 2, 0).astype(np.float64) * np.array(IMAGE_STD) + np.array(IMAGE_MEAN)
        return np.ascontiguousarray(np.clip(np.round(values * 255), 0, 255).astype(np.uint8))
    raise ValueError(
        f"expected a normalised float image (3, H, W) or 8-bit RGB (H, W, 3), got {array.dtype} "
        f"{array.shape}."
    )


def panel(
    image: Any,
    predictions: Mapping[str, Any],
    tasks: Sequence[Task],
    labels: Mapping[str, Any] | None = None,
    *,
    width: int | None = None,
    title: str = "image",
) -> Picture:
    """An image beside its predictions and, if given, their labels, with legends.

    With labels there is a column per task: prediction above label, with the same colours and depth range.
    Without, tiles flow over rows of up to four.

    Args:
        image: float (3, H, W), normalised, or uint8 (H, W, 3).
        predictions: {task: map} as `mtvision.core.prediction` returns them, without batch axis; arrays or
            tensors.
        tasks: which tasks to draw, in this order; those without prediction and label are left out.
        labels: {task: map}; a task without label shows "no label".
        width: of a tile in pixels; by default the image's, enlarged or reduced to 256..448.
        title: above the image.

    Returns:
        RGB (h, w, 3).
    """
    picture = denormalise(image)
    size = tile_size(picture.shape[:2], width)
    labels_given = labels is not None
    labels = labels or {}
    shown = [task for task in tasks if task.name in predictions or task.name in labels]
    rows = [predictions, labels] if labels_given else [predictions]
    columns = [stack([text_line(title, size[1], TITLE, bold=True), tile(picture, size)], gap=4)]
    columns += [task_column(task, [row.get(task.name) for row in rows], size) for task in shown]
    if not labels_given:
        per_row = len(columns) if len(columns) <= 4 else -(-len(columns) // (-(-len(columns) // 4)))
        return pad(_flow(columns, per_row), MARGIN)
    names = ["prediction", "label"]
    return pad(_beside([_row_names(names, size), *columns], GAP), MARGIN)


def sheet(
    samples: Sequence[Sample],
    tasks: Sequence[Task],
    *,
    width: int | None = None,
) -> Picture:
    """Samples of a data set below one another: image and every label, with legends at the bottom.

    Depth is drawn with one range for all samples, so that rows can be compared.

    Args:
        samples: as the data set returns them; sizes may differ. Ids are written on the left.
        tasks: columns, in this order.
        width: of a tile in pixels; by default the first image's, enlarged or reduced to 256..448.

    Returns:
        RGB (h, w, 3).

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("sheet: there is no sample to draw.")
    pictures = [denormalise(sample.image) for sample in samples]
    tallest = max(pictures, key=lambda picture: picture.shape[0] / picture.shape[1])
    size = tile_size(tallest.shape[:2], width)
    images = stack(
        [text_line("image", size[1], TITLE, bold=True), *(tile(picture, size) for picture in pictures)], gap=4
    )
    columns = [
        task_column(task, [sample.labels.get(task.name) for sample in samples], size) for task in tasks
    ]
    names = _row_names([sample.meta.id for sample in samples], size)
    return pad(_beside([names, images, *columns], GAP), MARGIN)


def tile_size(image: tuple[int, ...], width: int | None = None) -> tuple[int, int]:
    """(H, W) at which an image of that (H, W) is shown: small ones grow by a whole factor."""
    height, own = image
    if width is None:
        width = own * max(-(-MIN_TILE // own), 1) if own < MIN_TILE else min(own, MAX_TILE)
    return (max(round(height * width / own), 1), width)


def tile(picture: Picture, size: tuple[int, int], *, smooth: bool = True) -> Picture:
    """A picture inside a frame of exactly `size`, its aspect ratio kept."""
    height, width = _inside(picture.shape[:2], size)
    part = np.asarray(resized(picture, (height, width), smooth=smooth), dtype=np.uint8)
    result = np.full((*size, 3), 246, dtype=np.uint8)
    place(result, part, (size[0] - height) // 2, (size[1] - width) // 2)
    return framed(result)


def map_tile(task: Task, values: Any, size: tuple[int, int], limits: Range | None) -> Picture:
    """A label or prediction inside a frame of `size`; pixels without label hatched."""
    if values is None:
        result = np.full((*size, 3), 246, dtype=np.uint8)
        write(result, "no label", (size[1] // 2, size[0] // 2), SMALL, colour=FAINT, anchor="mm")
        return framed(result)
    array = to_array(values)
    picture, missing = colourise(task, array, limits=limits), unlabelled(task, array)
    target = _inside(picture.shape[:2], size)
    # Averaging while reducing keeps one-pixel boundaries visible; class colours must never mix.
    smooth = drawn_as(task) not in ("palette", "instances") and target[0] < picture.shape[0]
    drawn = np.asarray(resized(picture, target, smooth=smooth), dtype=np.uint8)
    hidden = np.asarray(resized(missing.astype(np.uint8), target, smooth=False), dtype=bool)
    drawn[hidden] = NO_LABEL
    return tile(hatch(drawn, hidden), size, smooth=False)


def task_column(task: Task, maps: Sequence[Any], size: tuple[int, int]) -> Picture:
    """Title, one tile per map (None = no label), legend."""
    given = [to_array(values) for values in maps if values is not None]
    limits = value_range(*given) if task.label == "values" else None
    title = task.name.replace("_", " ") + (f" ({task.unit})" if task.unit else "")
    parts = [text_line(title, size[1], TITLE, bold=True)]
    parts += [map_tile(task, values, size, limits) for values in maps]
    parts.append(legend(task, given, size[1], limits=limits))
    return stack(parts, gap=4)


def _inside(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """The largest (H, W) of the shape's aspect ratio that fits into `size`."""
    factor = min(size[0] / shape[0], size[1] / shape[1])
    return (max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1))


def _row_names(names: Sequence[str], size: tuple[int, int]) -> Picture:
    return stack([canvas(round(TITLE * 1.5), 1), *(sideways(name, size[0], SMALL) for name in names)], gap=4)


def _beside(parts: Sequence[Picture], gap: int) -> Picture:
    result = canvas(max(part.shape[0] for part in parts), sum(part.shape[1] + gap for part in parts) - gap)
    left = 0
    for part in parts:
        place(result, part, 0, left)
        left += part.shape[1] + gap
    return result


def _flow(columns: Sequence[Picture], per_row: int) -> Picture:
    rows = [columns[start : start + per_row] for start in range(0, len(columns), per_row)]
    return stack([_beside(row, GAP) for row in rows], gap=GAP)
