"""Plots of what budgets and preferences do to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mtvision.core.task import Task
from mtvision.visualize.files import write_figure

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")


def plot_trade_off(result: Mapping[str, Any], tasks: Sequence[Task], path: Path) -> None:
    """Score against cost for every task: what was chosen, uniform slimming, separate networks.

    Dots are outcomes, the larger the more the task was preferred.

    Args:
        result: of `mtvision.procedures.controllable.measure`.
        tasks: one panel each.
        path: PNG file.
    """
    figure = Figure(figsize=(4.2 * len(tasks), 3.4))
    axes = figure.subplots(1, len(tasks), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        rows = result["outcomes"]
        axis.scatter(
            [row["cost"] for row in rows],
            [row["scores"][task.name] for row in rows],
            s=[12 + 90 * row["preference"][task.name] for row in rows],
            color=COLOURS[0],
            alpha=0.5,
            linewidths=0,
            label="budget and preference",
        )
        uniform = [(row["cost"], row["scores"][task.name]) for row in result["uniform"]]
        _line(axis, uniform, 1, "uniform slimming")
        alone = [(row["cost"], row["separate"][task.name]) for row in result["separate"]]
        _line(axis, alone, 2, "trained separately")
        arrow = "↑" if task.higher_is_better else "↓"
        axis.set_title(f"{task.name} {task.headline} {arrow}", fontsize=10)
        axis.set_xlabel("share of the full network's MACs", fontsize=9)
        axis.grid(alpha=0.25)
    axes[0][0].legend(fontsize=8)
    write_figure(path, figure)


def plot_widths(result: Mapping[str, Any], tasks: Sequence[Task], path: Path) -> None:
    """Widths of the encoder and of every decoder over the budget, one panel for each preference."""
    preferences: list[Mapping[str, float]] = []
    for row in result["outcomes"]:
        if row["preference"] not in preferences:
            preferences.append(row["preference"])
    columns = min(4, len(preferences))
    lines = -(-len(preferences) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * lines))
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat[len(preferences) :]:
        axis.set_visible(False)
    for axis, preference in zip(axes.flat, preferences, strict=False):
        rows = [row for row in result["outcomes"] if row["preference"] == preference]
        encoder = [(row["budget"], _mean(row["widths"]["encoder"])) for row in rows]
        _line(axis, encoder, 3, "encoder")
        for index, task in enumerate(tasks):
            pairs = [(row["budget"], row["widths"]["decoders"].get(task.name, 1.0)) for row in rows]
            _line(axis, pairs, index, task.name)
        title = ", ".join(f"{name} {share:.2g}" for name, share in preference.items() if share)
        axis.set_title(title, fontsize=8)
        axis.grid(alpha=0.25)
    axes[0][0].legend(fontsize=7)
    axes[0][0].set_ylabel("width", fontsize=9)
    write_figure(path, figure)


def _mean(ratios: float | Sequence[float]) -> float:
    return sum(ratios) / len(ratios) if isinstance(ratios, Sequence) else ratios


def _line(axis: Any, pairs: Sequence[tuple[float, float]], colour: int, label: str) -> None:
    if pairs:
        x, y = zip(*sorted(pairs), strict=True)
        axis.plot(x, y, marker="o", markersize=4, color=COLOURS[colour % len(COLOURS)], label=label)
