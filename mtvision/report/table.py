"""Tables from records alone: one row per configuration, averaged over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, isnan
from statistics import stdev
from typing import Any, Literal

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.report.baseline import merged_constants
from mtvision.report.comparable.key import Group, facts, group_records, parting
from mtvision.report.comparable.task_entry import PROTOCOL_EVALUATOR
from mtvision.report.display import Display, display_of
from mtvision.report.grid import Cell, Column, Grid, Notes, Row
from mtvision.report.record import Record
from mtvision.report.render import FORMATS

Mixed = Literal["refuse", "mark"]


class MixedRecordsError(ValueError):
    """Records that must not share a table or a column."""


@dataclass(frozen=True)
class _Extra:
    """A column that is no score: title, number of a record (or None), printed form, direction."""

    title: str
    value: Callable[[Record], float | None]
    display: Display


def _dig(*path: str) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        node: Any = getattr(record, path[0])
        for part in path[1:]:
            node = node.get(part) if isinstance(node, Mapping) else None
        return None if node is None else float(node)

    return value


EXTRAS: dict[str, _Extra] = {
    "gain": _Extra("Δm %", _dig("gain", "percent"), Display("Δm %", 1, 2, True)),
    "parameters": _Extra("params M", _dig("cost", "parameters", "total"), Display("params M", 1e-6, 2)),
    "trainable": _Extra("trained M", _dig("cost", "parameters", "trainable"), Display("trained M", 1e-6, 2)),
    "active": _Extra("active M", _dig("cost", "parameters", "active"), Display("active M", 1e-6, 2)),
    "macs": _Extra("MACs G", _dig("cost", "macs", "total"), Display("MACs G", 1e-9, 2)),
    "latency": _Extra("latency ms", _dig("cost", "latency", "median_ms"), Display("latency ms", 1, 1)),
    "memory": _Extra("memory MiB", _dig("cost", "peak_memory", "bytes"), Display("memory MiB", 2**-20, 0)),
    "hours": _Extra("hours", _dig("training", "hours"), Display("hours", 1, 2)),
    "batch": _Extra("batch", _dig("effective_batch"), Display("batch", 1, 0)),
}
"""Columns that may follow the scores."""

ACTIVE = "active M: the parameters that one token reads; empty where a record does not say."


def usual_extras(records: Sequence[Record]) -> list[str]:
    """Columns after the scores that tables have by default: gain, parameters and MACs where known.

    Trained and active parameters have a column where some record has fewer of them than parameters.
    """
    shown = set()
    for record in records:
        values = {key: extra.value(record) for key, extra in EXTRAS.items()}
        shown |= {key for key in ("gain", "parameters", "macs") if values[key] is not None}
        shown |= {key for key in ("trainable", "active") if values[key] not in (None, values["parameters"])}
    return [key for key in EXTRAS if key in shown]


def licence_of(record: Record) -> str:
    """Licence of a row's weights, else of those that it started from, else empty."""
    started: Mapping[str, Any] = (record.training or {}).get("pretrained") or {}
    return str((record.checkpoint or {}).get("licence") or started.get("licence") or "")


TEXTS: dict[str, Callable[[Record], str]] = {
    "method": lambda record: record.method,
    "backbone": lambda record: record.backbone,
    "provenance": lambda record: record.provenance,
    "source": lambda record: record.source,
    "config": lambda record: (record.config or {}).get("name", ""),
    "licence": licence_of,
}
"""Columns of text."""


def render_table(
    records: Sequence[Record],
    format: str = "terminal",  # noqa: A002  the word users type
    *,
    columns: Sequence[str] | None = None,
    mixed: Mixed = "refuse",
    title: str | None = None,
) -> str:
    """A table of records as text.

    Args:
        records: of one protocol. Those that do not compare stand in groups of their own, see
            `mtvision.report.comparable.key`. A note names the fields that differ; nothing is ranked across.
            Records that differ in their seed alone become one row, mean ± sample standard deviation. Of two
            runs with one seed, the newer counts, and a note says so.
        format: `terminal` (no colours), `markdown`, `latex` (booktabs), `csv` (all digits) or `html`.
        columns: any of `method backbone provenance source config seeds gain parameters trainable active macs
            latency memory hours batch`, `task/score`, or a task's name for its headline score. By default
            method, backbone, the headline scores in the protocol's order, and `usual_extras`.
        mixed: what to do with scores of different evaluators in one column: `refuse`, or `mark` those that do
            not follow the protocol, which are then never ranked. Gains over different baselines are marked
            always.
        title: by default the protocol's.

    Raises:
        MixedRecordsError: different protocols; or different evaluators, without `mixed="mark"`.
        UnknownNameError: an unknown format or column.
        ValueError: no records.
    """
    renderer = look_up("table format", format, FORMATS)
    return renderer(build_grid(records, columns=columns, mixed=mixed, title=title))


def build_grid(
    records: Sequence[Record],
    *,
    columns: Sequence[str] | None = None,
    mixed: Mixed = "refuse",
    title: str | None = None,
    ranked: bool = True,
) -> Grid:
    """The table before it has a format; arguments and errors as `render_table`.

    Args:
        ranked: mark the best and second best, group by group.
    """
    if not records:
        raise ValueError(
            "there are no records to tabulate; train something, or give folders that hold records."
        )
    tasks = _common_tasks(records)
    notes = Notes()
    groups = rows_by_group(records, notes)
    every = [row for _, rows in groups for row in rows]
    keys = _resolve(columns, tasks, every)
    if "gain" in keys:
        _one_convention(every)
    if "active" in keys:
        notes.add(ACTIVE)
    head = [_column(key, tasks, every) for key in keys]
    if all(record.provenance == "smoke" for record in records):
        notes.add("smoke runs: tiny networks and short training, not comparable with published results.")
    body: list[Row] = []
    for group, rows in groups:
        notes.group = group.label
        cells = zip(*(_cells(key, tasks, rows, mixed, notes) for key in keys), strict=True)
        body += _constant_rows(group, head, tasks)
        body += [
            Row(tuple(own), "published" if is_published(row[0]) else "result", group.label)
            for row, own in zip(rows, cells, strict=True)
        ]
    notes.group = ""
    if len(groups) > 1:
        notes.add(parting(group for group, _ in groups))
    grid = Grid(
        title=records[0].protocol_title or records[0].protocol if title is None else title,
        columns=tuple(head),
        rows=tuple(body),
        notes=notes.listed(),
    )
    return grid.ranked() if ranked else grid


def rows_by_group(
    records: Sequence[Record], notes: Notes | None = None
) -> list[tuple[Group, list[list[Record]]]]:
    """Groups that do not compare, and the rows of each: one list of seeds per row, published ones first."""
    groups = sorted(group_records(records), key=lambda group: not all(map(is_published, group.records)))
    return [
        (group, sorted(group_seeds(group.records, notes), key=lambda row: not is_published(row[0])))
        for group in groups
    ]


def is_published(record: Record) -> bool:
    """Whether a record was typed from a publication; such rows stand above the others."""
    return record.provenance in ("paper", "released") and record.config is None


def _common_tasks(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """{task: entry} of one protocol's records; refuses to mix."""
    protocols = Counter(record.protocol for record in records)
    if len(protocols) > 1:
        listing = ", ".join(f"{name} ({count})" for name, count in sorted(protocols.items()))
        raise MixedRecordsError(
            f"records of {len(protocols)} protocols cannot share a table: {listing}. "
            "Their numbers do not compare; make one table per protocol."
        )
    tasks: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda item: -len(item.tasks)):  # the order of the fullest record
        for entry in record.tasks:
            first = tasks.setdefault(entry["name"], entry)
            for field in ("metric", "headline", "higher_is_better", "unit"):
                if first[field] != entry[field]:
                    raise MixedRecordsError(
                        f"task '{entry['name']}' of protocol {record.protocol} has {field} {first[field]!r} "
                        f"in one record and {entry[field]!r} in another; give the changed protocol an id of "
                        "its own."
                    )
    return tasks


def group_seeds(records: Sequence[Record], notes: Notes | None = None) -> list[list[Record]]:
    """Records of one configuration each, by seed; of two with one seed the newer one counts."""
    groups: dict[tuple[Any, ...], dict[Any, Record]] = {}
    dropped = 0
    for position, record in enumerate(records):
        seeds = groups.setdefault((*record.row_key, *sorted(facts(record).items())), {})
        seed = ("none", position) if record.seed is None else record.seed
        if seed in seeds:
            dropped += 1
            record = max(seeds[seed], record, key=lambda item: item.created)
        seeds[seed] = record
    if dropped and notes is not None:
        notes.add(f"{dropped} older run(s) of the same configuration and seed left out.")
    return [list(seeds.values()) for seeds in groups.values()]


def _resolve(
    columns: Sequence[str] | None, tasks: Mapping[str, Mapping[str, Any]], rows: Sequence[Sequence[Record]]
) -> list[str]:
    headlines = {name: f"{name}/{entry['headline']}" for name, entry in tasks.items()}
    every = [record for row in rows for record in row]
    scores = {
        f"{task}/{name}" for record in every for task, values in record.scores.items() for name in values
    }
    if columns is None:
        keys = ["method", "backbone"]
        keys += ["provenance"] if len({record.provenance for record in every}) > 1 else []
        keys += list(headlines.values())
        keys += usual_extras(every)
        return keys + (["seeds"] if any(len(row) > 1 for row in rows) else [])
    known = {*TEXTS, *EXTRAS, "seeds", *headlines, *scores}
    for key in columns:
        if key not in known:
            raise UnknownNameError("column", key, known)
    return [headlines.get(key, key) for key in columns]


def _column(key: str, tasks: Mapping[str, Any], rows: Sequence[Sequence[Record]]) -> Column:
    if key in TEXTS:
        return Column(key, key, numeric=False)
    if key == "seeds":
        return Column(key, "seeds")
    if key in EXTRAS:
        extra, direction = EXTRAS[key], _extra_direction(key, rows)
        return Column(
            key,
            extra.title,
            higher_is_better=direction,
            factor=extra.display.factor,
            digits=extra.display.digits,
        )
    task, _, score = key.partition("/")
    shown = display_of(tasks[task], score)
    title = shown.title + (f" {shown.unit}" if shown.unit else "")
    direction = (
        tasks[task]["higher_is_better"] if score == tasks[task]["headline"] else shown.higher_is_better
    )
    return Column(
        key,
        title,
        group=task.replace("_", " "),
        higher_is_better=direction,
        factor=shown.factor,
        digits=shown.digits,
    )


def _cells(
    key: str, tasks: Mapping[str, Any], rows: Sequence[Sequence[Record]], mixed: Mixed, notes: Notes
) -> list[Cell]:
    """A column's cells for the rows of one group."""
    if key in TEXTS:
        return [Cell(TEXTS[key](row[0])) for row in rows]
    if key == "seeds":
        return [Cell(str(len(row)), float(len(row))) for row in rows]
    task, _, score = key.partition("/")
    if key in EXTRAS:
        shown, value = EXTRAS[key].display, EXTRAS[key].value
        marks = _gain_marks(rows, notes) if key == "gain" else [""] * len(rows)
    else:
        shown, value = display_of(tasks[task], score), _dig("scores", task, score)
        marks = _evaluator_marks(key, rows, mixed, notes)
    return [
        replace(_average([value(record) for record in row], shown, mark), seeds=_seeds(row, value))
        for row, mark in zip(rows, marks, strict=True)
    ]


def _seeds(row: Sequence[Record], value: Callable[[Record], float | None]) -> tuple[tuple[int, float], ...]:
    """(seed, number) of the runs that have both."""
    found = [(record.seed, value(record)) for record in row]
    return tuple(
        (seed, number)
        for seed, number in found
        if seed is not None and number is not None and not isnan(number)
    )


def _extra_direction(key: str, rows: Sequence[Sequence[Record]]) -> bool | None:
    if key != "gain":
        return None
    return next((bool(r.gain["higher_is_better"]) for row in rows for r in row if r.gain is not None), True)


def _average(values: Sequence[float | None], shown: Display, mark: str = "") -> Cell:
    """Mean and sample standard deviation (divisor n - 1) of what was run; NaN stays visible as `–`."""
    known = [value for value in values if value is not None]
    if not known:
        return Cell()
    if any(isnan(value) for value in known):
        return Cell("–", mark=mark)
    mean = fsum(known) / len(known)
    if len(known) == 1 or max(known) == min(known):  # costs do not vary; one run has no spread
        std = None if len(known) == 1 else 0.0
        spread = "" if std is None or shown.higher_is_better is None else shown.text(0.0)
        return Cell(shown.text(mean), mean, spread, std if spread else None, mark=mark)
    std = stdev(known)
    return Cell(shown.text(mean), mean, shown.text(std), std, mark=mark)


def _evaluator_marks(key: str, rows: Sequence[Sequence[Record]], mixed: Mixed, notes: Notes) -> list[str]:
    task, _, score = key.partition("/")
    used = [
        {record.task(task)["evaluator"] for record in row if score in record.scores.get(task, {})}
        for row in rows
    ]
    every = sorted(set().union(*used))
    if len(every) <= 1 and every in ([], [PROTOCOL_EVALUATOR]):
        return [""] * len(rows)
    if len(every) == 1:
        notes.add(f"{key} is scored by: {every[0]}.")
        return [""] * len(rows)
    if mixed == "refuse" or any(len(names) > 1 for names in used):
        raise MixedRecordsError(
            f"column {key}: scores of {len(every)} evaluators do not compare: {'; '.join(every)}. Leave "
            "records or the column out, score them alike, or mark them (mixed='mark')."
        )
    standard = PROTOCOL_EVALUATOR if PROTOCOL_EVALUATOR in every else every[0]
    texts = [next(iter(names), standard) for names in used]
    return ["" if text == standard else notes.mark(f"another evaluator: {text}.") for text in texts]


def _one_convention(rows: Sequence[Sequence[Record]]) -> None:
    conventions = {record.gain["convention"] for row in rows for record in row if record.gain is not None}
    if len(conventions) > 1:
        raise MixedRecordsError(
            f"column gain: the conventions {', '.join(sorted(conventions))} give different numbers and "
            "cannot share a column; leave it out or compute one of them for all."
        )


def _gain_marks(rows: Sequence[Sequence[Record]], notes: Notes) -> list[str]:
    gains = [[record.gain for record in row if record.gain is not None] for row in rows]
    names = [sorted({gain["baseline"]["name"] for gain in row}) for row in gains]
    every = sorted({name for row in names for name in row})
    if len(every) == 1:
        notes.add(f"Δm: gain over {every[0]}.")
    if len(every) <= 1:
        return [""] * len(rows)
    return [notes.mark(f"gain over {' and '.join(row)}.") if row else "" for row in names]


def _constant_rows(
    group: Group, columns: Sequence[Column], tasks: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    """What the best constant prediction scores; several rows if records disagree (other training images).

    It was scored on the same images, so it stands in the group of its records, and is never ranked.
    """
    rows = []
    for constant in merged_constants(group.records):
        cells = []
        for column in columns:
            task, _, score = column.key.partition("/")
            value = constant.get(task, {}).get(score)
            cells.append(_average([value], display_of(tasks[task], score)) if task in tasks else Cell())
        first = next((index for index, column in enumerate(columns) if not column.numeric), None)
        if first is not None:
            cells[first] = Cell("constant predictor")
        rows.append(Row(tuple(cells), "constant", group.label))
    return rows
