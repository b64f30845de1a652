"""Rules by which some papers choose what they report, from the evaluations during training.

The record always holds the last checkpoint. With another `evaluation.select` the work dir also gets
`selection.json`, so that such a paper's number can be compared with a number made the same way. Both rules
look at `val_data`; where that is the test split, as in the papers, they choose on test data. `best` is no
paper's rule; it is for held-out images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Any

from mtvision.core.naming import look_up
from mtvision.protocols import Protocol
from mtvision.runtime.atomic import write_text

VALIDATION_FILE = "validations.jsonl"
SELECTION_FILE = "selection.json"

COMPAT_BASES: dict[str, dict[str, tuple[float, int]]] = {
    "nyud-invpt": {"semseg/miou": (0.55, 1), "depth/rmse": (0.49, -1), "normals/mean": (18.40, -1)},
    "pascal-invpt": {
        "semseg/miou": (80.89, 1),
        "human_parts/miou": (71.71, 1),
        "saliency/maxF_compat": (85.28, 1),
        "normals/mean": (13.47, -1),
    },
    "cityscapes-mtmamba": {"semseg/miou": (80.0, 1), "depth/rmse": (1.0, -1)},
}
"""{protocol: {score: (base, sign)}} of MTMamba's released code. Its scores are fractions, so that the
percentages among the bases count for next to nothing: copied. Its term for edges, a training loss, is left
out."""


def best_compat(rows: Sequence[Mapping[str, Any]], protocol: Protocol) -> list[int]:
    """The row with the largest mean relative improvement over `COMPAT_BASES`, the first of equals.

    Raises:
        UnknownNameError: the published rule does not know the protocol.
        ValueError: no score of the rule was evaluated.
    """
    bases = look_up("protocol of select='best_compat'", protocol.id, COMPAT_BASES)
    used = [name for name in bases if all(name in row["scores"] for row in rows)]
    if not used:
        raise ValueError(f"select='best_compat' needs at least one of {', '.join(bases)}.")

    def improvement(row: Mapping[str, Any]) -> float:
        terms = [
            sign * (row["scores"][name] - base) / base for name, (base, sign) in bases.items() if name in used
        ]
        return float(sum(terms) / len(terms))

    return [max(range(len(rows)), key=lambda index: improvement(rows[index]))]


def best(rows: Sequence[Mapping[str, Any]], protocol: Protocol) -> list[int]:
    """The row with the largest mean relative improvement of the headline scores over the first row.

    Every task counts alike, and the first of equals is taken. `val_data` should be held-out images, not what
    is tested.

    Raises:
        ValueError: a headline score was not evaluated.
    """
    names = {f"{task.name}/{task.headline}": 1 if task.higher_is_better else -1 for task in protocol.tasks}
    absent = [name for name in names if any(name not in row["scores"] for row in rows)]
    if absent:
        raise ValueError(f"select='best' needs the scores {', '.join(absent)} of every evaluation.")
    first = rows[0]["scores"]

    def improvement(row: Mapping[str, Any]) -> float:
        terms = [
            sign * (row["scores"][name] - first[name]) / (abs(first[name]) or 1.0)
            for name, sign in names.items()
        ]
        total = sum(terms) / len(terms)
        return total if isfinite(total) else -inf

    return [max(range(len(rows)), key=lambda index: improvement(rows[index]))]


def average_last_10(rows: Sequence[Mapping[str, Any]], protocol: Protocol) -> list[int]:
    """The last ten rows: family C averages the scores of its last ten epochs.

    Raises:
        ValueError: there are fewer.
    """
    if len(rows) < 10:
        raise ValueError(
            f"select='average_last_10' needs ten evaluations, there are {len(rows)}; evaluate once per epoch "
            f"(training.val_interval) for at least ten epochs of {protocol.title}."
        )
    return list(range(len(rows) - 10, len(rows)))


CHOICES = {"best": best, "best_compat": best_compat}
"""Rules that choose one evaluation, whose checkpoint stays on disk."""
RULES = {**CHOICES, "average_last_10": average_last_10}


def check_rule(name: str) -> None:
    """Refuse a value of `evaluation.select` that is neither `last` nor a rule.

    Raises:
        UnknownNameError: there is no such rule.
    """
    look_up("evaluation.select", name, {"last": None, **RULES})


def check_selection(rule: str, protocol: Protocol, iterations: int, interval: int) -> None:
    """Refuse a rule that cannot be applied to the evaluations of a run, before the run.

    Args:
        rule: `last` or one of `RULES`.
        protocol: of the run.
        iterations: of the run.
        interval: iterations between evaluations; the last iteration is evaluated in any case.

    Raises:
        ValueError, UnknownNameError: as the rules.
    """
    if rule == "last":
        return
    rows = [{"scores": dict.fromkeys(_score_names(protocol), 1.0)}] * -(-iterations // interval)
    look_up("evaluation.select", rule, RULES)(rows, protocol)


def _score_names(protocol: Protocol) -> list[str]:
    """The headline scores, and those of the published rules that the protocol's tasks can have."""
    names = [f"{task.name}/{task.headline}" for task in protocol.tasks]
    names += [name for table in COMPAT_BASES.values() for name in table]
    return [name for name in names if name.partition("/")[0] in protocol.task_names]


def validations(work_dir: Path) -> list[dict[str, Any]]:
    """The evaluations during training of a run, in their order; none without the file."""
    path = work_dir / VALIDATION_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def write_selection(
    work_dir: Path, rule: str, protocol: Protocol, iteration: int, last: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Apply a rule to a finished run's evaluations; write and return rule, iterations and mean scores.

    Args:
        work_dir: of the run.
        rule: one of `RULES`.
        protocol: of the run.
        iteration: the last one, which is not evaluated during training.
        last: {task: {score: value}} of the record, which stands in for it.

    Raises:
        ValueError, UnknownNameError: as the rules.
    """
    rows = validations(work_dir)
    flat = {f"{task}/{name}": value for task, scores in last.items() for name, value in scores.items()}
    rows.append({"iter": iteration, "scores": flat})
    chosen = [rows[index] for index in look_up("evaluation.select", rule, RULES)(rows, protocol)]
    names = [name for name in chosen[0]["scores"] if all(name in row["scores"] for row in chosen)]
    result = {
        "rule": rule,
        "iterations": [row["iter"] for row in chosen],
        "scores": {name: sum(row["scores"][name] for row in chosen) / len(chosen) for name in names},
    }
    write_text(work_dir / SELECTION_FILE, json.dumps(result, indent=2) + "\n")
    return result
