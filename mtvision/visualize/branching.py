"""Pictures of branching trees and of task affinities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from mtvision.architecture.tree import Tree
from mtvision.core.task import Task
from mtvision.visualize.colours import Picture
from mtvision.visualize.drawing import FAINT, INK, LINE, canvas, pad, shorten, text_width, write
from mtvision.visualize.files import write_figure

_CELL, _ROW, _SIZE = 92, 64, 13


def tree_picture(tree: Tree) -> Picture:
    """The tree from the image at the top to the tasks at the bottom; a box for every group of every level."""
    order = list(tree.levels[-1])
    leaves = [name for group in order for name in group]
    column = {name: index for index, name in enumerate(leaves)}
    left = max(text_width(f"level {i}: {n} blocks", _SIZE) for i, n in enumerate(tree.blocks)) + 24
    sheet = canvas(_ROW * (len(tree.levels) + 1), left + _CELL * len(leaves))

    def centre(group: Sequence[str]) -> int:
        places = [column[name] for name in group]
        return left + round(_CELL * (sum(places) / len(places) + 0.5))

    for level, partition in enumerate(tree.levels):
        top = _ROW * level + 14
        write(sheet, f"level {level}: {tree.blocks[level]} blocks", (4, top + 10), _SIZE, colour=FAINT)
        for group in partition:
            middle = centre(group)
            if level:
                before = next(item for item in tree.levels[level - 1] if set(group) <= set(item))
                cv2.line(sheet, (centre(before), top - _ROW + 36), (middle, top), LINE, 2, cv2.LINE_AA)
            half = _CELL // 2 - 8 + (len(group) - 1) * 12
            cv2.rectangle(sheet, (middle - half, top), (middle + half, top + 36), INK, 1)
            text = f"{len(group)} tasks" if len(group) > 1 else group[0]
            write(sheet, shorten(text, 2 * half - 6, _SIZE), (middle, top + 18), _SIZE, anchor="mm")
    top = _ROW * len(tree.levels) + 14
    for group in tree.levels[-1]:
        for name in group:
            place = left + round(_CELL * (column[name] + 0.5))
            cv2.line(sheet, (centre(group), top - _ROW + 36), (place, top + 4), LINE, 1, cv2.LINE_AA)
            write(sheet, shorten(name, _CELL - 6, _SIZE, bold=True), (place, top + 18), _SIZE, bold=True,
                  anchor="mm")  # fmt: skip
    return pad(sheet, 10)


def affinity_picture(tasks: Sequence[str], matrix: Sequence[Sequence[float]]) -> Picture:
    """A matrix of affinities with its numbers; blue above zero, red below, white at zero."""
    values = np.asarray(matrix, dtype=np.float64)
    if values.shape != (len(tasks), len(tasks)):
        raise ValueError(f"affinities: {len(tasks)} tasks but a matrix of shape {values.shape}.")
    scale = max(float(np.abs(values).max()), 1e-12)
    left = max(text_width(name, _SIZE) for name in tasks) + 16
    sheet = canvas(34 + 40 * len(tasks), left + _CELL * len(tasks))
    for index, name in enumerate(tasks):
        write(sheet, name, (left - 8, 34 + 40 * index + 20), _SIZE, anchor="rm")
        write(
            sheet,
            shorten(name, _CELL - 6, _SIZE),
            (left + _CELL * index + _CELL // 2, 18),
            _SIZE,
            anchor="mm",
        )
    for (row, column), value in np.ndenumerate(values):
        share = min(abs(float(value)) / scale, 1.0)
        colour = (59, 111, 182) if value > 0 else (190, 60, 50)
        shade = tuple(round(255 - share * 0.75 * (255 - part)) for part in colour)
        top, start = 34 + 40 * row, left + _CELL * column
        sheet[top + 1 : top + 39, start + 1 : start + _CELL - 1] = shade
        write(sheet, f"{float(value):.3g}", (start + _CELL // 2, top + 20), _SIZE, anchor="mm")
    return pad(sheet, 10)


def plot_cost_curve(rows: Sequence[Mapping[str, Any]], tasks: Sequence[Task], path: Path) -> None:
    """Held-out score against MACs of the tree, one panel per task; every dot says its λ.

    Args:
        rows: with `cost_weight`, `macs` and `scores`, as `mtvision.procedures.trade_off` makes them.
        tasks: those without a score are left out; without any score nothing is drawn.
        path: PNG file.
    """
    scored = [task for task in tasks if all(task.name in row["scores"] for row in rows)]
    if not scored:
        return
    figure = Figure(figsize=(4.2 * len(scored), 3.4))
    axes = figure.subplots(1, len(scored), squeeze=False)
    for axis, task in zip(axes[0], scored, strict=True):
        costs = [row["macs"] / 1e6 for row in rows]
        values = [row["scores"][task.name] for row in rows]
        axis.plot(costs, values, "o", color="#4c72b0")
        for row, cost, value in zip(rows, costs, values, strict=True):
            axis.annotate(f"λ={row['cost_weight']:g}", (cost, value), (4, 4), textcoords="offset points",
                          fontsize=7)  # fmt: skip
        axis.set_title(f"{task.name} {task.headline} {'↑' if task.higher_is_better else '↓'}", fontsize=10)
        axis.set_xlabel("MACs of the tree, millions", fontsize=9)
        axis.margins(0.15)
        axis.grid(alpha=0.25)
    write_figure(path, figure)
