"""Measures of controllability: hypervolume, uniformity, range, adherence to budgets.

Definitions of Raychaudhuri et al. ("Controllable Dynamic Multi-Task Architectures", CVPR 2022) where they
have one. All work on relative errors: 1 is as good as the reference network, smaller is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mtvision.architecture.widths import WidthConfig
from mtvision.core.task import Task


@dataclass(frozen=True)
class Outcome:
    """Scores and cost of a network for one budget and preference.

    Args:
        budget: share of the full network's MACs that was allowed.
        preference: {task: share}.
        widths: that were chosen.
        cost: MACs per image, as a share of the full network's.
        scores: {task: headline score}.
        errors: {task: relative error}, see `relative_errors`.
    """

    budget: float
    preference: Mapping[str, float]
    widths: WidthConfig
    cost: float
    scores: Mapping[str, float]
    errors: Mapping[str, float]

    def to_plain(self) -> dict[str, Any]:
        """Numbers and dicts."""
        return {**self.__dict__, "widths": self.widths.to_plain()}


def relative_errors(
    tasks: Sequence[Task], scores: Mapping[str, float], reference: Mapping[str, float]
) -> dict[str, float]:
    """{task: M / R where lower is better, R / M where higher is better}: 1 = as good as the reference."""
    result = {}
    for task in tasks:
        own, base = scores[task.name], reference[task.name]
        pair = (base, own) if task.higher_is_better else (own, base)
        result[task.name] = pair[0] / max(pair[1], 1e-12)
    return result


def preference_grid(tasks: Sequence[str]) -> list[dict[str, float]]:
    """All alike; for every task: it alone, all but it, it twice as much as the others; pairs of four or more.

    Without repetitions; shares add up to 1.
    """
    rows = [dict.fromkeys(tasks, 1.0)]
    for name in tasks:
        rows += [{name: 1.0}, {other: 1.0 for other in tasks if other != name}]
        rows += [{other: 2.0 if other == name else 1.0 for other in tasks}]
    if len(tasks) > 3:
        rows += [dict.fromkeys(pair, 1.0) for pair in combinations(tasks, 2)]
    grid: list[dict[str, float]] = []
    for row in rows:
        total = sum(row.values())
        shares = {name: row.get(name, 0.0) / total for name in tasks} if total else {}
        if shares and shares not in grid:
            grid.append(shares)
    return grid


def hypervolume(points: Sequence[Mapping[str, float]], reference: float) -> float:
    """Volume that the points dominate inside the box up to `reference` in every task; exact.

    Args:
        points: relative errors; those beyond the box dominate nothing.
        reference: relative error of the worst corner, e.g. 2.

    Raises:
        ImportError: pymoo is not installed.
        ValueError: no points.
    """
    try:
        from pymoo.indicators.hv import HV
    except ImportError as error:
        raise ImportError(
            "hypervolume needs pymoo: python -m pip install 'mtvision[search]' (or pymoo)."
        ) from error
    if not points:
        raise ValueError("hypervolume: there are no points.")
    names = sorted(points[0])
    values = np.array([[point[name] for name in names] for point in points])
    return float(HV(ref_point=np.full(len(names), reference))(values))


def uniformity(preference: Mapping[str, float], errors: Mapping[str, float]) -> float:
    """1 - KL(p || 1/T) with p_t proportional to preference times error; 1 = errors inverse to preferences.

    Tasks without preference take no part; NaN with fewer than two others.
    """
    weighted = {name: share * errors[name] for name, share in preference.items() if share > 0}
    if len(weighted) < 2:
        return math.nan
    total = sum(weighted.values())
    shares = [value / total for value in weighted.values()]
    return 1.0 - sum(share * math.log(share * len(shares)) for share in shares if share > 0)


def task_range(task: Task, outcomes: Sequence[Outcome], budget: float) -> float:
    """Score of a task with the largest preference minus that with the smallest, at one budget; > 0 = better.

    NaN where the outcomes hold a single preference for the task.
    """
    rows = [item for item in outcomes if item.budget == budget]
    shares = {item.preference[task.name] for item in rows}
    if len(shares) < 2:
        return math.nan
    low, high = (
        [item.scores[task.name] for item in rows if item.preference[task.name] == share]
        for share in (min(shares), max(shares))
    )
    difference = float(np.mean(high) - np.mean(low))
    return difference if task.higher_is_better else -difference


def adherence(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Adherence to budgets: largest cost over budget (at most 1), and the mean share of it that is used."""
    used = [item.cost / item.budget for item in outcomes]
    return {"worst": max(used), "mean": float(np.mean(used))}
