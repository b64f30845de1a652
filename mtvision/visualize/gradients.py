"""Plot of how the gradients of the tasks related during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mtvision.visualize.files import write_figure

PANELS = {
    "gradient/cosine/": "cosine of two tasks' gradients",
    "gradient/norm/": "norm of each task's gradient",
    "weight/": "weight of each task",
    "share/": "share of each weighted loss",
}


def plot_gradients(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Cosines, norms, weights and shares over the steps at which they were measured.

    Args:
        rows: steps of `losses.jsonl` with `gradient/…` values.
        path: PNG file.
    """
    shown = {prefix: _names(rows, prefix) for prefix in PANELS}
    shown = {prefix: names for prefix, names in shown.items() if names}
    figure = Figure(figsize=(4.6 * max(len(shown), 1), 3.4))
    axes = figure.subplots(1, max(len(shown), 1), squeeze=False)
    for axis, (prefix, names) in zip(axes[0], shown.items(), strict=False):
        for name in names:
            pairs = [(row["iter"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*pairs, strict=True), marker=".", label=name.removeprefix(prefix))
        if prefix == "gradient/cosine/":
            axis.axhline(0, color="black", linewidth=0.8)
        if prefix == "gradient/norm/":
            axis.set_yscale("log")
        axis.set_title(PANELS[prefix], fontsize=10)
        axis.set_xlabel("iteration", fontsize=9)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7)
    write_figure(path, figure)


def _names(rows: Sequence[Mapping[str, float]], prefix: str) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(prefix)))
