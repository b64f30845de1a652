"""Values that no metric can give: what is outside a metric's declared range, and what is no number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any

from mtvision.core.registry import METRICS
from mtvision.report.comparable.task_entry import metrics_of

ROUNDING = 1e-9
"""How far a sum of many terms may lie outside, relative to the bound (at least 1)."""

Range = tuple[float | None, float | None]


def range_of(metric: str, score: str) -> Range | None:
    """The declared range of a metric's score; None where the metric is unknown here or declares none."""
    if metric not in METRICS:
        return None
    declared: Mapping[str, Range] = METRICS.constant(metric, "ranges") or {}
    found = declared.get(score)
    return found or next((value for name, value in declared.items() if fnmatchcase(score, name)), None)


def range_errors(data: Mapping[str, Any]) -> Iterator[str]:
    """Scores, scores of the constant predictor and of the baseline outside their metric's range, in words.

    Args:
        data: plain data of a record that follows the schema.
    """
    replaced = {item["name"] for item in data.get("replaced") or () if item["table"] == "metric"}
    metrics = {
        task["name"]: [name for name in metrics_of(task) if name not in replaced] for task in data["tasks"]
    }
    tables = {
        "scores": data["scores"],
        "constant": data.get("constant") or {},
        "gain.baseline.scores": ((data.get("gain") or {}).get("baseline") or {}).get("scores") or {},
    }
    for where, table in tables.items():
        for task, scores in table.items():
            for score, value in scores.items():
                for metric in metrics.get(task, ()):
                    allowed = range_of(metric, score)
                    if allowed is not None and value is not None and not _inside(value, allowed):
                        low, high = allowed
                        first = "no lower bound" if low is None else f"{low:g}"
                        last = "no upper bound" if high is None else f"{high:g}"
                        yield (
                            f"{where}.{task}.{score}: found {value!r}, expected {first} to {last}, the "
                            f"range of metric '{metric}'."
                        )


def _inside(value: float, allowed: Range) -> bool:
    low, high = allowed
    slack = ROUNDING * max(1.0, abs(low or 0.0), abs(high or 0.0))
    return (low is None or low - slack <= value) and (high is None or value <= high + slack)


def number_errors(value: Any, path: str = "") -> Iterator[str]:
    """Numbers of plain data that are NaN or infinite; a score that is not defined is null."""
    if isinstance(value, float) and not isfinite(value):
        yield f"{path}: found {value}, expected a finite number, or null where nothing could be scored."
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from number_errors(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from number_errors(item, f"{path}[{index}]")
