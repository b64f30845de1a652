"""The check's result for eyes (rich tables) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtvision.core.task import Task
from mtvision.data.check.rules import Finding
from mtvision.data.check.statistics import SplitStatistics, TaskStatistics
from mtvision.data.dataset import DenseDataset

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
BAR = 30


def render(
    console: Console,
    splits: Mapping[str, tuple[DenseDataset, SplitStatistics]],
    findings: Sequence[Finding],
) -> None:
    """Print tables of every split, class histograms, and the findings, worst first."""
    for name, (dataset, statistics) in splits.items():
        sizes = ", ".join(
            f"{height}x{width} ({count})" for (height, width), count in statistics.sizes.most_common(4)
        )
        more = f" and {len(statistics.sizes) - 4} other sizes" if len(statistics.sizes) > 4 else ""
        console.print(
            f"\n[bold]{dataset.protocol.title}, {name}[/]: {len(dataset)} images, {statistics.read} read"
        )
        console.print(f"sizes (height x width): {sizes or 'none'}{more}")
        console.print(_task_table(dataset, statistics))
        for decided, encoding in dataset.encodings().items():
            for line in encoding.describe():
                console.print(Text(f"{decided}: {line}"), soft_wrap=True)
        for task in dataset.tasks.values():
            counted = statistics.tasks.get(task.name)
            if task.label == "classes" and counted and counted.histogram:
                console.print(_histogram(task, counted))
    order = {"error": 0, "warning": 1, "note": 2}
    for finding in sorted(findings, key=lambda item: order[item.level]):
        console.print(Text(f"{finding.level}: {finding.where}: {finding.text}", style=STYLES[finding.level]))
    errors = sum(finding.level == "error" for finding in findings)
    verdict = (
        Text(f"{errors} error(s): scores on this copy would be wrong.", style="bold red")
        if errors
        else Text("Nothing found that would corrupt a score.", style="bold green")
    )
    console.print(verdict)


def _task_table(dataset: DenseDataset, statistics: SplitStatistics) -> Table:
    table = Table("task", "images", "without any label", "ignored pixels", "values")
    for name, task in dataset.tasks.items():
        counted = statistics.tasks.get(name, TaskStatistics())
        values = (
            f"{counted.low:.4g} to {counted.high:.4g} {task.unit}".strip() if counted.labelled else "none"
        )
        table.add_row(name, str(counted.images), str(len(counted.empty)), f"{counted.ignored:.2%}", values)
    return table


def _histogram(task: Task, counted: TaskStatistics) -> Table:
    table = Table("id", task.name, "share", "")
    largest = max(counted.histogram.values())
    for index in range(task.num_classes):
        count = counted.histogram.get(index, 0)
        label = task.class_names[index] if task.class_names else ""
        bar = "█" * round(BAR * count / largest)
        table.add_row(str(index), label, f"{count / counted.labelled:.3%}", bar)
    return table


def to_json(
    splits: Mapping[str, tuple[DenseDataset, SplitStatistics]], findings: Sequence[Finding]
) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "splits": {
            name: {
                "protocol": dataset.protocol.id,
                "images": len(dataset),
                "read": statistics.read,
                "failures": statistics.failures,
                "sizes": {f"{h}x{w}": count for (h, w), count in sorted(statistics.sizes.items())},
                "gray": statistics.gray,
                "flat": statistics.flat,
                "encodings": {task: item.describe() for task, item in dataset.encodings().items()},
                "tasks": {task: _task_json(counted) for task, counted in statistics.tasks.items()},
            }
            for name, (dataset, statistics) in splits.items()
        },
        "findings": [asdict(finding) for finding in findings],
    }


def _task_json(counted: TaskStatistics) -> dict[str, Any]:
    low_high = {"low": counted.low, "high": counted.high} if counted.labelled else {"low": None, "high": None}
    return {
        "images": counted.images,
        "without_label": counted.empty,
        "ignored": counted.ignored,
        **low_high,
        "histogram": {str(index): count for index, count in sorted(counted.histogram.items())},
    }
