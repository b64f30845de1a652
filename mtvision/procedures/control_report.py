"""Report of `tools/controllable.py`: a table, plots and a page with a slider."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.table import Table

from mtvision.core.context import Context, use_context
from mtvision.core.sample import Sample, collate
from mtvision.core.task import Task
from mtvision.evaluation.scoring import predict_batch
from mtvision.models.network import Network
from mtvision.procedures.controllable import Controlled
from mtvision.recipe.data import build_dataset
from mtvision.recipe.settings import Settings
from mtvision.report.control_page import control_page, write_control_page
from mtvision.runtime.atomic import write_text
from mtvision.runtime.attempts import Attempts
from mtvision.visualize import panel
from mtvision.visualize.controllability import plot_trade_off, plot_widths


def write_report(
    controlled: Controlled, result: Mapping[str, Any], folder: Path, *, pictures: int = 2
) -> list[Path]:
    """Table in Markdown, two plots, one page, each on its own; returns the paths of what was written."""
    tasks = controlled.settings.protocol.tasks
    files: dict[str, Callable[[Path], object]] = {
        "controllability.md": lambda path: write_text(
            path, "\n\n".join(markdown_table(*item) for item in tables(result, tasks)) + "\n"
        ),
        "trade_off.png": lambda path: plot_trade_off(result, tasks, path),
        "widths.png": lambda path: plot_widths(result, tasks, path),
        "page.html": lambda path: write_control_page(path, _page(controlled, result, pictures)),
    }
    later, advice = Attempts(), "the numbers are in controllability.json"
    return [
        folder / name
        for name, write in files.items()
        if later.done(name, partial(write, folder / name), advice)
    ]


def tables(result: Mapping[str, Any], tasks: Sequence[Task]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, columns, rows) of everything measured."""
    names = [task.name for task in tasks]
    columns = [f"{task.name} {task.headline} {'↑' if task.higher_is_better else '↓'}" for task in tasks]
    separate = [
        [f"{row['width']:g}", f"{row['cost']:.3f}"]
        + [f"{row['slimmed'][name]:.4g} / {row['separate'][name]:.4g}" for name in names]
        + [f"{100 * row['mean_change']:+.1f} %"]
        for row in result["separate"]
    ]
    volumes = [
        [f"{row['budget']:g}", f"{row['controlled']:.4f}", f"{row['uniform']:.4f}"]
        + [f"{result['range'][name][str(row['budget'])]:+.4g}" for name in names]
        for row in result["hypervolume"]
    ]
    outcomes = [
        [f"{row['budget']:g}", _preference_text(row["preference"])]
        + [_width_text(row["widths"]), f"{row['cost']:.3f}"]
        + [f"{row['scores'][name]:.4g}" for name in names]
        for row in result["outcomes"]
    ]
    corner = f"reference point {result['reference_point']:g} in every task"
    return [
        (
            "Slimmed / trained separately, at equal widths",
            ["width", "cost", *columns, "mean change"],
            separate,
        ),
        (
            f"Hypervolume of relative errors ({corner}); range: score at largest minus smallest preference",
            ["budget", "controlled", "uniform slimming", *(f"range {name}" for name in names)],
            volumes,
        ),
        ("All outcomes", ["budget", "preference", "widths", "cost", *columns], outcomes),
    ]


def terminal_tables(result: Mapping[str, Any], tasks: Sequence[Task]) -> list[Table]:
    """The first two tables for a terminal."""
    shown = []
    for title, columns, rows in tables(result, tasks)[:2]:
        table = Table(title=title)
        for column in columns:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row)
        shown.append(table)
    return shown


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """The numbers of the whole evaluation in words."""
    near = [row for row in result["separate"] if row["mean_change"] >= -0.1]
    above = [row for row in result["hypervolume"] if row["controlled"] > row["uniform"]]
    raised, kept = result["raised"], result["adherence"]
    return [
        f"within 10 % of separate networks: {len(near)} of {len(result['separate'])} widths",
        f"preference raises the task's score: {100 * raised['share']:.0f} % of {raised['pairs']} pairs",
        f"hypervolume above uniform slimming: {len(above)} of {len(result['hypervolume'])} budgets",
        f"uniformity {result['uniformity']:.3f}; cost over budget at most {kept['worst']:.3f}, "
        f"on average {kept['mean']:.3f}",
    ]


def _preference_text(preference: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.2g}" for name, share in preference.items() if share)


def _width_text(widths: Mapping[str, Any]) -> str:
    encoder = widths["encoder"]
    text = "-".join(f"{item:g}" for item in encoder) if isinstance(encoder, list) else f"{encoder:g}"
    return " ".join([f"encoder {text}", *(f"{name} {item:g}" for name, item in widths["decoders"].items())])


def markdown_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with its title for a document."""
    lines = [" | ".join(items) for items in (columns, ["---:"] * len(columns), *rows)]
    return "\n".join([f"**{title}**", "", *(f"| {line} |" for line in lines)])


@torch.no_grad()
def _page(controlled: Controlled, result: Mapping[str, Any], pictures: int) -> str:
    protocol, config = controlled.settings.protocol, controlled.config
    dataset = build_dataset("test_data", config["test_data"], protocol, controlled.settings.seed)
    samples = [dataset[index * len(dataset) // max(pictures, 1)] for index in range(pictures)]
    names = [task.name for task in protocol.tasks]
    choices: list[tuple[str, dict[str, float]]] = [("all alike", dict.fromkeys(names, 1.0))]
    choices += [(name, {name: 1.0}) for name in names]
    drawn: dict[str, list[str]] = {}
    shots = []
    for first, budget in enumerate(result["budgets"]):
        for second, (_, preference) in enumerate(choices):
            chosen = controlled.table.choose(budget, preference)
            text = str(chosen.widths)
            if text not in drawn:
                with use_context(Context(widths=chosen.widths.to_plain())):
                    drawn[text] = [picture(controlled.network, controlled.settings, item) for item in samples]
            scores = controlled.scores(chosen.widths)
            shots.append(
                {
                    "budget": first,
                    "preference": second,
                    "share": f"{100 * budget:g} % of the full network",
                    "facts": {"widths": text, "MACs per image": f"{chosen.cost / 1e6:.1f} M"},
                    "scores": {
                        f"{task.name} {task.headline}": f"{scores[task.name]:.4g}" for task in protocol.tasks
                    },
                    "pictures": drawn[text],
                }
            )
    note = (
        f"{protocol.title}. One network, one checkpoint; the widths are chosen for the budget and the "
        "preference. Scores are those of the whole test split."
    )
    return control_page(
        "Budget and preference", note, result["budgets"], [name for name, _ in choices], shots
    )


def picture(network: Network, settings: Settings, sample: Sample) -> str:
    """Image and predictions of a sample, in the context in force: a JPEG file in base64."""
    tasks = settings.protocol.tasks
    prediction = predict_batch(network, tasks, collate([sample]), settings.evaluation.precision)[0]
    drawn = panel(sample.image, prediction, tasks)
    good, encoded = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not good:
        raise OSError("a panel could not be encoded as JPEG.")
    return base64.b64encode(encoded.tobytes()).decode()
