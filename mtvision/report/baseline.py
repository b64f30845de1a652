"""The multi-task gain over single-task networks that are among the records themselves."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, isfinite
from typing import Any

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.report.comparable.key import common_facts, conflicts, departures, group_records, in_words
from mtvision.report.record import Record, Scores

SINGLE_TASK = "single-task"
"""The baseline that is formed from the records of one task each."""
LEAST = 0.01
"""Smallest share, such as an mIoU or an AP, that a gain divides by."""


class NoRatioError(ValueError):
    """A baseline is so near 0 that no gain over it makes sense."""


@dataclass(frozen=True)
class Baseline:
    """Single-task scores that a gain is computed over.

    Args:
        name: as tables call it.
        scores: {task: {headline score: value}}.
    """

    name: str
    scores: dict[str, dict[str, float]]


def with_gain(
    records: Sequence[Record], baseline: str = SINGLE_TASK, problems: list[str] | None = None
) -> list[Record]:
    """Copies of the records with their multi-task gain (convention `headline`) over one baseline.

    `single-task` takes the records that have one task, and averages each task's headline score over their
    seeds. They count for a record if their scores compare with its (`mtvision.report.comparable.key`) and if
    they were trained the same way. Equal are then: backbone, number of training images, effective batch,
    iterations, training precision and evaluator of the task. The weights that training starts from may
    differ. Where several such configurations are left, the one with the record's own optimizer and schedule
    counts.

    Args:
        records: of one protocol or more; those of one task, and published ones, stay as they are.
        baseline: `single-task`, or the name of one of the protocol's own baselines.
        problems: receives the reason, once per row, where a record has no such baseline; it then has no gain.
            None = refuse.

    Raises:
        ValueError: a task of a record has no single-task network, or several that differ.
        UnknownNameError: the protocol has no baseline of that name.
    """
    single = [record for record in records if is_single_task(record)]
    result = []
    for record in records:
        if is_single_task(record) or record.provenance == "paper":
            result.append(record)
            continue
        try:
            result.append(replace(record, gain=gain_over(record, _baseline(record, single, baseline))))
        except (ValueError, UnknownNameError) as error:
            if problems is None:
                raise
            if str(error) not in problems:
                problems.append(str(error))
            result.append(replace(record, gain=None))
    return result


def require_baseline(protocols: Iterable[str], name: str) -> None:
    """Refuse a name that none of some protocols has a baseline of.

    Raises:
        UnknownNameError: the message names the baselines that there are.
    """
    from mtvision.protocols import PROTOCOLS

    used = set(protocols) & PROTOCOLS.keys()
    known = {SINGLE_TASK, *(item for protocol in used for item in PROTOCOLS[protocol].baselines)}
    if name not in known:
        raise UnknownNameError("baseline", name, known)


def is_single_task(record: Record) -> bool:
    """Whether the network was trained on one task; a multi-task network may be scored on one alone."""
    trained = (record.checkpoint or {}).get("tasks", record.task_names)
    return len(record.tasks) == 1 and len(trained) == 1


def _baseline(record: Record, single: Sequence[Record], name: str) -> Baseline:
    return single_task_baseline(record, single) if name == SINGLE_TASK else _protocol_baseline(record, name)


def base_scores(record: Record) -> Scores:
    """The record's headline scores that a gain can divide by: finite, not 0, and no share below `LEAST`."""
    found: Scores = {}
    for entry in record.tasks:
        value = record.scores.get(entry["name"], {}).get(entry["headline"])
        if value is not None and isfinite(value) and _divides(value, entry):
            found[entry["name"]] = {entry["headline"]: value}
    return found


def _divides(score: float, entry: Mapping[str, Any]) -> bool:
    return score != 0 and (not entry["higher_is_better"] or abs(score) >= LEAST)


def gain_over(record: Record, baseline: Baseline) -> dict[str, Any]:
    """The `gain` field of a record: mean over tasks of the headline score's relative change, in per cent.

    Raises:
        ValueError: a score or its baseline is missing, not finite, or the baseline is 0.
        NoRatioError: the baseline of a score that is better when higher is below `LEAST`.
    """
    parts = {}
    for entry in record.tasks:
        name, headline = entry["name"], entry["headline"]
        score = record.scores.get(name, {}).get(headline)
        base = baseline.scores.get(name, {}).get(headline)
        if score is None or base is None or not isfinite(score) or not isfinite(base) or base == 0:
            raise ValueError(
                f"gain of {record.method}: {name} {headline} is {score} and its baseline {base}; both must "
                "be finite and the baseline not 0. Leave the record out, or give another baseline."
            )
        if not _divides(base, entry):
            raise NoRatioError(
                f"gain of {record.method}: the baseline of {name} {headline} is {base:.2g}, so near 0 that "
                "a ratio to it says nothing. Compare the task alone, by `mtvision table` with --ledger or "
                "--against."
            )
        parts[name] = (1 if entry["higher_is_better"] else -1) * 100 * (score - base) / abs(base)
    return {
        "convention": "headline",
        "percent": fsum(parts.values()) / len(parts),
        "parts": parts,
        "higher_is_better": True,
        "baseline": {"name": baseline.name, "scores": baseline.scores},
    }


def single_task_baseline(record: Record, single: Sequence[Record]) -> Baseline:
    """The mean scores of the single-task networks that were trained as `record` was; see `with_gain`."""
    scores, counts = {}, set()
    for entry in record.tasks:
        group = _matching(record, entry, single)
        values = [run.scores[entry["name"]][entry["headline"]] for run in group]
        scores[entry["name"]] = {entry["headline"]: fsum(values) / len(values)}
        counts.add(len(group))
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    plural = "" if counts == {1} else "s"
    return Baseline(f"single-task networks trained the same way (mean of {seeds} seed{plural})", scores)


def _matching(record: Record, entry: Mapping[str, Any], single: Sequence[Record]) -> list[Record]:
    """The seeds of the one single-task configuration that belongs to a record's task."""
    of_task = [run for run in single if run.task_names == (entry["name"],)]
    alike = [
        run
        for run in of_task
        if training_key(run) == training_key(record)
        and not conflicts(run, record)
        and run.task(entry["name"])["evaluator"] == entry["evaluator"]
    ]
    rows: dict[tuple[str, ...], dict[int | None, Record]] = defaultdict(dict)
    for run in alike:
        seeds = rows[run.row_key]
        seeds[run.seed] = max(run, seeds.get(run.seed, run), key=lambda item: item.created)
    if len(rows) > 1:
        same = {
            key: runs for key, runs in rows.items() if _recipe(next(iter(runs.values()))) == _recipe(record)
        }
        rows = defaultdict(dict, same or rows)
    if len(rows) == 1:
        return list(next(iter(rows.values())).values())
    where = f"{record.method} / {record.backbone}: task {entry['name']}"
    if rows:
        names = ", ".join(sorted({f"{key[2]} ({len(runs)} seeds)" for key, runs in rows.items()}))
        raise ValueError(
            f"{where} has {len(rows)} single-task configurations trained alike: {names}. Give the records "
            "of one."
        )
    others = "there is none" if not of_task else _nearest(record, of_task)
    raise ValueError(
        f"{where} has no single-task network trained the same way ({others}). Train its config with "
        f"tasks=['{entry['name']}'] and give that record too."
    )


def training_key(record: Record) -> dict[str, Any]:
    """Key of the training conditions that single-task and multi-task networks must share."""
    return {
        **common_facts(record),
        "backbone": record.backbone,
        "training images": ((record.data or {}).get("train") or {}).get("images"),
        "batch": record.effective_batch,
        "iterations": (record.training or {}).get("iterations"),
        "precision": (record.precision or {}).get("train"),
    }


def _nearest(record: Record, others: Sequence[Record]) -> str:
    wanted = training_key(record)
    differing = [
        {name for name, value in training_key(run).items() if value != wanted[name]}
        | conflicts(run, record).keys()
        for run in others
    ]
    fewest = min(differing, key=len)
    return f"{len(others)} differ, the nearest in {', '.join(sorted(fewest)) or 'evaluator'}"


def _recipe(record: Record) -> tuple[str, ...]:
    """Optimizer and schedule as the config states them."""
    found = {}
    for node in ast.parse((record.config or {}).get("text", "")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.dump(node.value)
    return tuple(found.get(name, "") for name in ("optimizer", "schedule"))


def _protocol_baseline(record: Record, name: str) -> Baseline:
    from mtvision.protocols import get_protocol

    changed = departures(record)
    if changed:
        raise ValueError(
            f"{record.method} / {record.backbone} was not scored as protocol {record.protocol} says, whose "
            f"baselines do not compare with it: {in_words(changed)}. Compute the gain over single-task "
            "networks that were scored alike."
        )
    known = {**get_protocol(record.protocol).baselines, SINGLE_TASK: {}}
    table = look_up(f"baseline of protocol {record.protocol}", name, known)
    headlines = {entry["name"]: entry["headline"] for entry in record.tasks}
    scores = {task: {headlines[task]: value} for task, value in table.items() if task in headlines}
    return Baseline(name, scores)


def fold_single_task(records: Sequence[Record]) -> list[Record]:
    """Single-task records of one recipe, group and seed joined to one row of a table, the others unchanged.

    The joined row has every task's score of its own network. Its parameters and multiply-accumulates are the
    sum over all networks, the cost of using them together.
    """
    groups: dict[str, dict[int | None, list[Record]]] = defaultdict(lambda: defaultdict(list))
    rest = []
    place = {id(record): n for n, group in enumerate(group_records(records)) for record in group.records}
    for record in records:
        if is_single_task(record) and record.provenance != "paper":
            key = repr((place[id(record)], training_key(record), _recipe(record)))
            groups[key][record.seed].append(record)
        else:
            rest.append(record)
    order = max((record.task_names for record in rest), key=len, default=())
    joined = [row for seeds in groups.values() for row in _joined(seeds, order)]
    return [*joined, *rest]


def _joined(seeds: Mapping[int | None, Sequence[Record]], order: Sequence[str]) -> list[Record]:
    newest: dict[int | None, dict[str, Record]] = {}
    for seed, group in seeds.items():
        for run in sorted(group, key=lambda item: item.created):
            newest.setdefault(seed, {})[run.task_names[0]] = run
    entries = {name: run.tasks[0] for runs in newest.values() for name, run in runs.items()}
    entries = {
        name: entries[name] for name in sorted(entries, key=lambda n: n not in order or order.index(n))
    }
    if len(entries) == 1:
        return [run for runs in newest.values() for run in runs.values()]
    rows = []
    for seed, runs in newest.items():
        first = next(iter(runs.values()))
        complete = runs.keys() == entries.keys()
        rows.append(
            replace(
                first,
                method=f"{SINGLE_TASK} ({len(entries)} networks)",
                tasks=list(entries.values()),
                scores={name: run.scores[name] for name, run in runs.items()},
                leave_one_out=_left_out(list(runs.values())),
                constant=None,
                gain=None,
                config=None,
                scored=_scored(list(runs.values())),
                replaced=_distinct(item for run in runs.values() for item in run.replaced),
                plugins=_distinct(item for run in runs.values() for item in run.plugins),
                cost=_summed(list(runs.values())) if complete else None,
                checkpoint=None,
                training=None,
                seed=seed,
            )
        )
    return rows


def _distinct(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({tuple(sorted(item.items())): item for item in entries}.values())


def _left_out(runs: Sequence[Record]) -> Scores | None:
    """The scores without each image, of the tasks that have some."""
    return {task: values for run in runs for task, values in (run.leave_one_out or {}).items()} or None


def _scored(runs: Sequence[Record]) -> dict[str, Any] | None:
    """What was scored, with the labels of every network's task."""
    first = runs[0].scored
    if first is None:
        return None
    return {
        **first,
        "labels": {name: value for run in runs for name, value in (run.scored or first)["labels"].items()},
    }


def _summed(runs: Sequence[Record]) -> dict[str, Any] | None:
    costs = [run.cost for run in runs if run.cost is not None]
    if len(costs) < len(runs) or any(cost.get("macs") is None for cost in costs):
        return None
    return {
        "parameters": {
            key: sum(cost["parameters"][key] for cost in costs)
            for key in ("total", "trainable", "active")
            if all(cost["parameters"].get(key) is not None for cost in costs)
        },
        "macs": {
            "total": sum(cost["macs"]["total"] for cost in costs),
            "counted": costs[0]["macs"]["counted"],
        },
    }


def merged_constants(records: Sequence[Record]) -> list[dict[str, dict[str, float]]]:
    """Scores of the constant predictors of some records, {task: {score: value}}; those that agree are joined.

    A record of one task has the constant of that task alone, so that single-task networks share an entry.
    """
    merged: list[dict[str, dict[str, float]]] = []
    for constant in (record.constant for record in records if record.constant):
        for known in merged:
            if all(known.get(task, scores) == scores for task, scores in constant.items()):
                known.update(constant)
                break
        else:
            merged.append(dict(constant))
    return merged
