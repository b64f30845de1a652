"""Plot of how tasks use the experts of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mtvision.visualize.files import write_figure

COLUMNS = 3


def plot_expert_usage(usage: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """One panel for each layer: tasks from top to bottom, experts from left to right.

    Args:
        usage: {layer: {task: share of each expert}}, from
            `mtvision.models.layers.experts.usage.expert_usage`.
        path: PNG file.
    """
    columns = min(COLUMNS, len(usage))
    rows = -(-len(usage) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.6 * rows))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    largest = max(max(shares) for tasks in usage.values() for shares in tasks.values())
    for (layer, tasks), axis in zip(usage.items(), panels, strict=False):
        shown = axis.imshow(list(tasks.values()), vmin=0, vmax=largest, cmap="viridis", aspect="auto")
        axis.set_title(layer, fontsize=8)
        axis.set_yticks(range(len(tasks)), list(tasks), fontsize=8)
        axis.set_xlabel("expert", fontsize=8)
        figure.colorbar(shown, ax=axis).ax.tick_params(labelsize=7)
    for axis in list(panels):  # those without a layer
        axis.set_visible(False)
    write_figure(path, figure)
