"""Multi-task gain: by how many per cent a multi-task model is better than its single-task baselines.

Three conventions are in use and give different numbers; a result must say which one it is. Baselines are
always given by the caller: they belong to a backbone, a protocol and a schedule, never to a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite

from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.metrics.several.options import directions

HIGHER_IS_BETTER: dict[str, bool] = {
    "miou": True, "pixel_accuracy": True,
    "rmse": False, "log_rmse": False, "abs_rel": False, "sq_rel": False, "abs_err": False, "rel_err": False,
    "delta1": True, "delta2": True, "delta3": True,
    "mean": False, "median": False, "11.25": True, "22.5": True, "30": True,
    "odsF": True, "oisF": True, "AP": True, "R50": True,
    "maxF": True, "maxF_compat": True, "survey_miou": True, "survey_maxF": True, "sod_maxF": True,
    "s_measure": True, "e_mean": True, "e_max": True, "e_adaptive": True, "mae": False,
    "instance_AP": True, "instance_AP50": True, "instance_AP75": True,
}  # fmt: skip
"""Direction of every score of `METRICS`."""

Scores = Mapping[str, Mapping[str, float]]
"""{task: {score: value}}."""


@dataclass(frozen=True)
class Gain:
    """A multi-task gain.

    Args:
        convention: which rule made it: a key of `CONVENTIONS`.
        percent: the gain.
        parts: what it is the mean of, in per cent: {task: value} or {task/score: value}.
        higher_is_better: False only for `metrics`, whose authors print negative numbers for improvements.
    """

    convention: str
    percent: float
    parts: dict[str, float]
    higher_is_better: bool


def headline_gain(tasks: Sequence[Task], scores: Scores, baselines: Scores) -> Gain:
    """Mean over tasks of the relative change of each task's headline score (ASTMT, InvPT, MTMamba; family A).

    With M the score, B the baseline, l = 1 where lower is better: 100 / T * sum (-1)^l (M - B) / |B|.

    Args:
        tasks: name, headline score and direction of every task that takes part.
        scores: {task: {score: value}} of the multi-task model; other scores are ignored.
        baselines: the same of single-task models, in the same unit.

    Raises:
        ValueError: no task, a missing or non-finite score, a missing or zero baseline.
    """
    parts = {}
    for task in tasks:
        sign = 1 if task.higher_is_better else -1
        parts[task.name] = sign * _change(task.name, task.headline, scores, baselines)
    return Gain("headline", _mean(parts, "tasks"), parts, True)


def task_mean_gain(tasks: Sequence[Task], scores: Scores, baselines: Scores) -> Gain:
    """Mean over the scores of a task, then over tasks (LibMTL `count_improvement`); higher is better.

    The scores that count are those of `baselines`. Raises as `headline_gain`.
    """
    parts = {}
    for task in tasks:
        changes = _directed(task, scores, baselines)
        parts[task.name] = _mean(changes, f"baseline scores of {task.name}")
    return Gain("tasks", _mean(parts, "tasks"), parts, True)


def metric_mean_gain(tasks: Sequence[Task], scores: Scores, baselines: Scores) -> Gain:
    """Mean over all scores of all tasks, **negative where better** (NashMTL, FAMO `delta_fn`).

    A task weighs as much as it has scores: on NYUv2 normals 5/9, segmentation and depth 2/9 each. The scores
    that count are those of `baselines`. Raises as `headline_gain`.
    """
    parts: dict[str, float] = {}
    for task in tasks:
        changes = _directed(task, scores, baselines)
        parts |= {f"{task.name}/{name}": -value for name, value in changes.items()}
    return Gain("metrics", _mean(parts, "baseline scores"), parts, False)


CONVENTIONS: dict[str, Callable[[Sequence[Task], Scores, Scores], Gain]] = {
    "headline": headline_gain,
    "tasks": task_mean_gain,
    "metrics": metric_mean_gain,
}


def gain(tasks: Sequence[Task], scores: Scores, baselines: Scores, convention: str = "headline") -> Gain:
    """Multi-task gain by one of `CONVENTIONS`; raises `UnknownNameError` for another name."""
    return look_up("gain convention", convention, CONVENTIONS)(tasks, scores, baselines)


def _directed(task: Task, scores: Scores, baselines: Scores) -> dict[str, float]:
    """Relative changes in per cent of all scores of a task's baseline, positive where better."""
    changes, known = {}, HIGHER_IS_BETTER | directions(task)
    for name in _entry(task.name, baselines, "baseline"):
        sign = 1 if look_up("score", name, known) else -1
        changes[name] = sign * _change(task.name, name, scores, baselines)
    return changes


def _change(task: str, name: str, scores: Scores, baselines: Scores) -> float:
    value, base = _value(task, name, scores, "score"), _value(task, name, baselines, "baseline")
    if base == 0:
        raise ValueError(f"gain: the baseline of {task} {name} is 0, a relative change is not defined.")
    return 100 * (value - base) / abs(base)  # the direction of a negative score stays


def _entry(task: str, table: Scores, what: str) -> Mapping[str, float]:
    if task not in table:
        raise ValueError(
            f"gain: task '{task}' has no {what}; there are some for {', '.join(sorted(table)) or 'no task'}. "
            "Train a single-task model of the same backbone, or leave the task out."
        )
    return table[task]


def _value(task: str, name: str, table: Scores, what: str) -> float:
    entry = _entry(task, table, what)
    if name not in entry:
        known = ", ".join(sorted(entry)) or "nothing"
        raise ValueError(f"gain: the {what} of task '{task}' has no '{name}'; it has {known}.")
    if not isfinite(entry[name]):
        raise ValueError(f"gain: the {what} {name} of task '{task}' is {entry[name]}, not a finite number.")
    return float(entry[name])


def _mean(parts: Mapping[str, float], what: str) -> float:
    if not parts:
        raise ValueError(f"gain: there are no {what} to average.")
    return fsum(parts.values()) / len(parts)
