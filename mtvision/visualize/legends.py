"""Legends of map colours: one small picture per task."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.registry import LEGENDS
from mtvision.core.task import Task
from mtvision.visualize.colours import (
    NO_LABEL,
    Colour,
    Picture,
    Range,
    classes_present,
    colourise,
    depth_colours,
    drawn_as,
    is_logarithmic,
    levels,
    palette,
    unlabelled,
    value_limits,
    wheel_colours,
)
from mtvision.visualize.drawing import FAINT, INK, canvas, framed, place, shorten, text_width, write

SIZE = 12
"""Text size in pixels."""
BAR = 12
SQUARE = 11
MAX_LINES = 8


def legend(task: Task, maps: Sequence[Any], width: int, *, limits: Range | None = None) -> Picture:
    """Legend of a task, drawn under its maps.

    Args:
        task: `colours` decides the kind: class swatches, a colour bar, a ball of normals, a wheel.
        maps: predictions and labels shown; only classes that occur in them are listed, largest area first.
        width: in pixels.
        limits: the range that `depth` and `values` span.

    Returns:
        RGB (h, width, 3). Colours of your own have an empty legend; `@LEGENDS.register_module("name")` gives
        them one.
    """
    colours = drawn_as(task)
    if colours not in LEGENDS:
        return canvas(1, width)
    picture: Picture = LEGENDS[colours](task, maps, width, limits)
    return picture


@LEGENDS.register_module("palette")
def _class_legend(task: Task, maps: Sequence[Any], width: int, _: Range | None) -> Picture:
    """Names of the classes that occur, beside their colours."""
    names = task.class_names or tuple(str(index) for index in range(task.num_classes))
    colours = palette(task)
    entries = [(names[index], colours[index]) for index in classes_present(task, maps)]
    if any(unlabelled(task, values).any() for values in maps):
        entries.append(("no label", NO_LABEL))
    return swatches(entries, width)


@LEGENDS.register_module("instances")
def _instance_legend(task: Task, maps: Sequence[Any], width: int, limits: Range | None) -> Picture:
    """Names of the classes whose instances occur, as for class maps."""
    return _class_legend(task, maps, width, limits)


def swatches(entries: Sequence[tuple[str, Colour]], width: int) -> Picture:
    """Coloured squares with names, flowing over at most `MAX_LINES` lines; what is left is counted."""
    texts = [shorten(name, width - SQUARE - 5, SIZE) for name, _ in entries]
    lines = flow([SQUARE + 5 + text_width(text, SIZE) for text in texts], width, 11)
    rest = len(entries) - sum(len(line) for line in lines[:MAX_LINES])
    if rest:
        lines = lines[:MAX_LINES]
        while len(lines[-1]) > 1 and lines[-1][-1][1] + text_width("+99 more", SIZE) > width:
            lines[-1].pop()
            rest += 1
    height = SIZE + 7
    picture = canvas(max(len(lines), 1) * height, width)
    position = 0
    for row, line in enumerate(lines):
        top = row * height + 3
        for left, _ in line:
            colour = np.full((SQUARE, SQUARE, 3), entries[position][1], dtype=np.uint8)
            place(picture, framed(colour), top, left)
            at = (left + SQUARE + 5, top + SQUARE // 2)
            write(picture, texts[position], at, SIZE, anchor="lm")
            position += 1
        if rest and row == len(lines) - 1:
            write(picture, f"+{rest} more", (line[-1][1], top + SQUARE // 2), SIZE, colour=FAINT, anchor="lm")
    return picture


def flow(widths: Sequence[int], width: int, gap: int) -> list[list[tuple[int, int]]]:
    """Break things of some widths into lines; per line (left, where the next one would begin) of each."""
    lines: list[list[tuple[int, int]]] = []
    for own in widths:
        left = lines[-1][-1][1] if lines else width + 1
        if left + own > width:
            lines.append([])
            left = 0
        lines[-1].append((left, left + own + gap))
    return lines


@LEGENDS.register_module("depth")
def _colour_bar(task: Task, _: Sequence[Any], width: int, limits: Range | None) -> Picture:
    """A bar of the colour map with its limits."""
    low, high = limits if limits is not None else (0.0, 1.0)
    bar = depth_colours(np.tile(np.linspace(0, 1, width), (BAR, 1)))
    values = log_ticks(low, high) if is_logarithmic((low, high)) else ticks(low, high)
    return _with_ticks(bar, (low, high), values, task.unit)


@LEGENDS.register_module("gray")
def _gray_bar(task: Task, _: Sequence[Any], width: int, _limits: Range | None) -> Picture:
    """A bar from black to white with its limits."""
    return _with_ticks(_shades(width), (0.0, 1.0), [0.0, 0.5, 1.0], task.unit)


def _shades(width: int) -> Picture:
    return np.repeat(np.tile(np.linspace(0, 255, width), (BAR, 1)).astype(np.uint8)[..., None], 3, axis=2)


@LEGENDS.register_module("values")
def _value_legend(task: Task, _: Sequence[Any], width: int, limits: Range | None) -> Picture:
    """A bar with the limits; of two channels, a wheel of directions and the length at its edge."""
    low, high = value_limits(task.label_channels, limits if limits is not None else (0.0, 1.0))
    if task.label_channels != 2:
        bar = _with_ticks(_shades(width), (low, high), ticks(low, high), task.unit, logarithmic=False)
        if task.label_channels == 1:
            return bar
        return np.concatenate([bar, _faint("channels 1, 2, 3 as red, green, blue", width)])
    side = 64
    picture = canvas(side + 8, width)
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    inside = disc_mask(side)
    picture[4 : 4 + side, 4 : 4 + side][inside] = wheel_colours(np.stack(np.meshgrid(steps, steps)), 1.0)[
        inside
    ]
    text = shorten(f"length {high:.3g} {task.unit}".rstrip(), max(width - side - 14, 1), SIZE)
    write(picture, text, (side + 14, 4 + side // 2), SIZE, colour=INK, anchor="lm")
    return picture


def _faint(text: str, width: int) -> Picture:
    line = canvas(SIZE + 4, width)
    write(line, shorten(text, width, SIZE - 1), (0, 0), SIZE - 1, colour=FAINT)
    return line


def _with_ticks(
    bar: Picture, limits: Range, values: Sequence[float], unit: str, *, logarithmic: bool | None = None
) -> Picture:
    width = bar.shape[1]
    picture = canvas(BAR + SIZE + 14, width)
    place(picture, framed(bar), 3, 0)
    right_edge = -1
    for position, value in enumerate(values):
        share = float(levels(np.array(value), limits, logarithmic=logarithmic))
        x = round(share * (width - 1))
        picture[BAR + 3 : BAR + 7, np.clip(x, 0, width - 1)] = FAINT
        text = f"{value:g}" + (f" {unit}" if unit and position == len(values) - 1 else "")
        half = text_width(text, SIZE - 1) // 2 + 1
        x = int(np.clip(x, half, width - half))
        if x - half > right_edge:
            write(picture, text, (x, BAR + 8), SIZE - 1, colour=INK, anchor="ma")
            right_edge = x + half + 3
    return picture


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high]; at most `most`, at least two.

    >>> ticks(0.7, 9.6)
    [2.0, 4.0, 6.0, 8.0]
    """
    power = 10.0 ** floor(log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first = np.ceil(low / step - 1e-9)
        last = np.floor(high / step + 1e-9)
        values = [float(round(index * step, 12)) + 0.0 for index in np.arange(first, last + 1)]
        if len(values) <= most:
            return values if len(values) > 1 else [low, high]
    raise AssertionError("a step of twice the range leaves at most one tick")


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high].

    >>> log_ticks(0.9, 22.0)
    [1.0, 2.0, 5.0, 10.0, 20.0]
    """
    powers = range(floor(log10(low)), floor(log10(high)) + 1)
    values = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    return [value for value in values if low <= value <= high]


@LEGENDS.register_module("normals")
def _sphere(task: Task, _: Sequence[Any], width: int, _limits: Range | None) -> Picture:
    """A sphere whose surface shows the colour of every direction."""
    side = 64
    place_at = 18
    picture = canvas(side + 8, width)
    disc = colourise(task, sphere_normals(side))
    inside = disc_mask(side)
    region = picture[4 : 4 + side, place_at : place_at + side]
    region[inside] = disc[inside]
    left = place_at + side + 4
    write(picture, "x", (left, 4 + side // 2), SIZE, colour=INK, anchor="lm")
    write(picture, "y", (place_at - 4, 4), SIZE, colour=INK, anchor="ra")
    picture[4 + side // 2, place_at + side // 2 : place_at + side] = INK
    picture[4 : 4 + side // 2, place_at + side // 2] = INK
    if width > left + 90:
        for line, text in enumerate(("colour of the unit", "vector (x, y, z)", "where z ≥ 0")):
            write(picture, text, (left + 18, 12 + line * (SIZE + 4)), SIZE - 1, colour=FAINT)
    return picture


def sphere_normals(side: int) -> NDArray[np.float64]:
    """Unit vectors (3, side, side) of a ball seen from the front: x right, y up, z towards the viewer."""
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(steps, -steps)
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    return np.asarray(np.stack([x, y, z]) / np.maximum(np.sqrt(x**2 + y**2 + z**2), 1e-12))


def disc_mask(side: int) -> NDArray[np.bool_]:
    """(side, side), True inside the inscribed circle."""
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    return np.asarray(steps[:, None] ** 2 + steps[None] ** 2 <= 1)
