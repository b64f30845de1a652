"""Printed form of scores: names, scale, digits and direction, as in the papers of the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from mtvision.report.comparable.task_entry import metrics_of


@dataclass(frozen=True)
class Display:
    """Printed form of one score.

    Args:
        title: heading of its column.
        factor: what the stored value is multiplied with (100 for shares, printed in per cent).
        digits: decimals.
        higher_is_better: direction, None where there is none.
        unit: after the title, e.g. `°`.
    """

    title: str
    factor: float = 1.0
    digits: int = 4
    higher_is_better: bool | None = None
    unit: str = ""

    def text(self, value: float | None) -> str:
        """The printed number; an empty text for None, `–` for a score that is not defined (NaN)."""
        if value is None:
            return ""
        return f"{value * self.factor:.{self.digits}f}" if isfinite(value) else "–"


def _share(title: str, digits: int = 2) -> Display:
    return Display(title, factor=100, digits=digits, higher_is_better=True)


def _error(title: str, digits: int = 4, unit: str = "") -> Display:
    return Display(title, digits=digits, higher_is_better=False, unit=unit)


SCORES: dict[str, Display] = {
    "miou": _share("mIoU"), "pixel_accuracy": _share("pixel acc."),
    "rmse": _error("RMSE"), "log_rmse": _error("log RMSE"),
    "abs_rel": _error("abs rel"), "sq_rel": _error("sq rel"),
    "abs_err": _error("abs err"), "rel_err": _error("rel err"),
    "delta1": _share("δ<1.25"), "delta2": _share("δ<1.25²"), "delta3": _share("δ<1.25³"),
    "mean": _error("mean", 2, "°"), "median": _error("median", 2, "°"),
    "11.25": _share("<11.25°"), "22.5": _share("<22.5°"), "30": _share("<30°"),
    "odsF": _share("odsF"), "oisF": _share("oisF"), "AP": _share("AP"), "R50": _share("R50"),
    "maxF": _share("maxF"), "maxF_compat": _share("maxF (compat)"),
    "survey_miou": _share("mIoU"), "survey_maxF": _share("maxF (survey)"),
    "sod_maxF": _share("maxF (SOD)"),
    "s_measure": _share("S"), "e_mean": _share("mean E"), "e_max": _share("max E"),
    "e_adaptive": _share("adaptive E"), "mae": _error("MAE"),
    "instance_AP": _share("instance AP"), "instance_AP50": _share("instance AP50"),
    "instance_AP75": _share("instance AP75"),
}  # fmt: skip
"""Display of every score of `mtvision.metrics`; shares are stored as fractions and printed in per cent."""

BY_METRIC: dict[str, Display] = {"normals/rmse": _error("RMSE", 2, "°")}
"""Exceptions: scores whose unit depends on the metric, `metric/score`."""


def display_of(task: Mapping[str, Any], score: str) -> Display:
    """How a score of a record's task is printed.

    A score that is not in this table (of a user's own metric) is printed as stored. Its direction is known
    if it is the task's headline, or if the metric says it (`Metric.higher_is_better`).
    """
    metrics = metrics_of(task)
    found = next((BY_METRIC[f"{name}/{score}"] for name in metrics if f"{name}/{score}" in BY_METRIC), None)
    found = found or SCORES.get(score)
    if found is None:
        said = {**task.get("directions", {}), task["headline"]: task["higher_is_better"]}
        return Display(score, higher_is_better=said.get(score))
    if found.unit == "°" and "normals" not in metrics:  # another metric whose score has the name by chance
        return replace(found, unit=str(task.get("unit", "")))
    if found.unit == "" and task.get("unit") and score in ("rmse", "abs_err", "mae"):
        return _error(found.title, found.digits, str(task["unit"]))
    return found
