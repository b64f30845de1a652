"""Published results as data, checked by rules, and compared with reproduced ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from mtvision.core.naming import look_up
from mtvision.report.comparable.task_entry import PROTOCOL_EVALUATOR, describe_tasks
from mtvision.report.display import SCORES
from mtvision.report.record import Record

Certainty = Literal["stated", "second-hand", "memory", "inferred"]
CERTAINTIES: tuple[Certainty, ...] = ("stated", "second-hand", "memory", "inferred")

PLAUSIBLE: dict[str, tuple[float, float]] = {
    "miou": (0.05, 0.95), "pixel_accuracy": (0.3, 0.99), "survey_miou": (0.4, 0.9), "maxF": (0.6, 0.98),
    "odsF": (0.4, 0.9), "rmse": (0.2, 8.0), "abs_err": (0.005, 2.0), "rel_err": (0.05, 40.0),
    "mean": (8.0, 40.0), "median": (5.0, 40.0), "11.25": (0.1, 0.9), "22.5": (0.2, 0.97), "30": (0.3, 0.99),
}  # fmt: skip
"""Values outside are typing errors: a share that was not divided by 100, columns that were swapped."""

USUAL: dict[tuple[str, str], tuple[float, float]] = {
    ("nyud-invpt", "normals/mean"): (16.0, 24.0),
    ("nyud-invpt", "edge/odsF"): (0.74, 0.80),
    ("nyud-invpt", "depth/rmse"): (0.45, 0.70),
    ("pascal-invpt", "saliency/maxF"): (0.80, 0.88),
    ("pascal-invpt", "normals/mean"): (13.0, 16.0),
}
"""Values outside need an evaluator other than the protocol's: who is far away has measured something else."""

NEEDS_EVALUATOR = {"odsF", "maxF"}
"""Scores of which several implementations are in use; every row must say which one it has."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a published table.

    Args:
        protocol: id.
        method: as published.
        backbone: the papers' name, e.g. `ViT-L`.
        provenance: `paper`, or `released` for the score of an authors' checkpoint.
        scores: {task: {score: value}} in the units of records.
        source: where it was read.
        certainty: how sure the row is, one of `CERTAINTIES`.
        doubts: {task: certainty} where it is less sure.
        evaluators: {task: tool}; `protocol` = the one the protocol names.
        parameters: number, None = not published.
        trainable: number of parameters with a gradient, None = not published.
        macs: number, None = not published.
        cost_source: where cost was read, if elsewhere.
        gain: `convention` and `percent` as printed, or None.
        note: anything else.
    """

    protocol: str
    method: str
    backbone: str
    provenance: str = "paper"
    scores: dict[str, dict[str, float]]
    source: str
    certainty: str
    doubts: dict[str, str] = field(default_factory=dict)
    evaluators: dict[str, str] = field(default_factory=dict)
    parameters: float | None = None
    trainable: float | None = None
    macs: float | None = None
    cost_source: str = ""
    gain: dict[str, Any] | None = None
    note: str = ""

    def evaluator(self, task: str) -> str:
        """The tool that scored a task."""
        return self.evaluators.get(task, PROTOCOL_EVALUATOR)


@cache
def _file() -> dict[str, Any]:
    import yaml

    text = (resources.files("mtvision.report") / "published.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def backbone_name(name: str) -> str:
    """The papers' name of a backbone: `ViT-L` for `vit_large_patch16_384`; unknown names stay as they are."""
    for published, beginnings in _file()["backbones"].items():
        if name.lower().startswith(tuple(beginnings)):
            return str(published)
    return name


def code_licence(method: str) -> str:
    """Licence of a published method's public code, whatever its setting; empty where it was not looked up.

    >>> code_licence("MTLoRA (rank 16)"), code_licence("M2H"), code_licence("ours")
    ('MIT', 'none given', '')
    """
    return str(_file()["licences"].get(method.partition(" (")[0], ""))


def published_rows(
    protocol: str | None = None,
    certainties: Sequence[str] = CERTAINTIES,
    *,
    data: Mapping[str, Any] | None = None,
) -> list[PublishedRow]:
    """Rows of `published.yaml`.

    Args:
        protocol: id; all protocols if None.
        certainties: rows of other certainties are left out, and so are single scores that are less sure.
        data: in place of the file's content.

    Raises:
        UnknownNameError: no table of that protocol, an unknown certainty or source.
        ValueError: a row does not have one score per column.
    """
    content = _file() if data is None else data
    for certainty in certainties:
        look_up("certainty", certainty, {name: name for name in CERTAINTIES})
    tables = {table["protocol"]: table for table in content["tables"]}
    chosen = list(tables.values()) if protocol is None else [look_up("published table", protocol, tables)]
    rows = [_row(table, entry, content["sources"]) for table in chosen for entry in table["rows"]]
    kept = [_sure(row, certainties) for row in rows if row.certainty in certainties]
    return [row for row in kept if row.scores]


def _row(table: Mapping[str, Any], entry: Mapping[str, Any], sources: Mapping[str, str]) -> PublishedRow:
    values = dict(entry)
    columns, printed = table["columns"], values.pop("scores")
    if len(columns) != len(printed):
        raise ValueError(
            f"published.yaml, {table['protocol']}, {entry['method']}: {len(printed)} scores for "
            f"{len(columns)} columns; write null for what was not published."
        )
    scores: dict[str, dict[str, float]] = {}
    for column, value in zip(columns, printed, strict=True):
        task, _, score = column.partition("/")
        if value is not None:
            factor = look_up("score", score, SCORES).factor
            scores.setdefault(task, {})[score] = value / factor
    for name, factor in (("parameters", 1e6), ("trainable", 1e6), ("macs", 1e9)):
        if name in values:
            values[name] = values[name] * factor
    for name in ("source", "cost_source"):
        if name in values:
            values[name] = look_up("source", values[name], sources)
    evaluators = {**table.get("evaluators", {}), **values.pop("evaluators", {})}
    kept = {task: tool for task, tool in evaluators.items() if task in scores}
    return PublishedRow(protocol=table["protocol"], scores=scores, evaluators=kept, **values)


def _sure(row: PublishedRow, certainties: Sequence[str]) -> PublishedRow:
    unsure = {task for task, certainty in row.doubts.items() if certainty not in certainties}
    scores = {task: values for task, values in row.scores.items() if task not in unsure}
    return PublishedRow(**{**row.__dict__, "scores": scores})


def published_records(protocol: str, certainties: Sequence[str] = ("stated",)) -> list[Record]:
    """Published rows as records, for tables beside reproduced ones; give `mixed="mark"` to the table.

    By default only what was read at its source. A less certain row has its certainty in the method's name. A
    single uncertain score has it in its evaluator. Such scores are marked and never ranked.

    Args:
        protocol: id of a protocol of this package.
        certainties: what to include.
    """
    from mtvision.protocols import get_protocol

    definition = get_protocol(protocol)
    records = []
    for row in published_rows(protocol, certainties):
        tasks = [task for task in definition.tasks if task.headline in row.scores.get(task.name, {})]
        if not tasks:
            continue
        entries = [
            {**entry, "evaluator": _evaluator_text(row, entry["name"])} for entry in describe_tasks(tasks)
        ]
        label = "" if row.certainty == "stated" else f" ({row.certainty})"
        cost = _cost(row)
        records.append(
            Record(
                protocol=protocol,
                protocol_title=definition.title,
                protocol_digest=definition.digest(),
                method=row.method + label,
                backbone=row.backbone,
                provenance=row.provenance,
                source=row.source,
                tasks=entries,
                scores={task.name: dict(row.scores[task.name]) for task in tasks},
                cost=cost,
                notes=[row.note] if row.note else [],
            )
        )
    return records


def _evaluator_text(row: PublishedRow, task: str) -> str:
    tool = row.evaluator(task)
    return f"{tool}, value {row.doubts[task]}" if task in row.doubts else tool


def _cost(row: PublishedRow) -> dict[str, Any] | None:
    numbers = {"total": row.parameters, "trainable": row.trainable}
    parameters = {name: round(value) for name, value in numbers.items() if value is not None}
    if not parameters:
        return None
    macs = (
        None
        if row.macs is None
        else {"total": row.macs, "counted": f"as published: {row.cost_source or row.source}"}
    )
    return {"parameters": parameters, "macs": macs}


def check_published(rows: Sequence[PublishedRow] | None = None) -> list[str]:
    """Violations of the rules that published rows must keep, in words; empty if there are none.

    Checked are known tasks, scores and certainties, plausible values, and that no row exists twice. A tool
    must be named wherever several are in use. A value outside the usual range must have another tool than the
    protocol's.
    """
    rows = published_rows() if rows is None else rows
    problems = [problem for row in rows for problem in _row_problems(row)]
    keys = Counter((row.protocol, row.method, row.backbone, row.provenance, row.source) for row in rows)
    problems += [f"{' / '.join(key)}: occurs {count} times." for key, count in keys.items() if count > 1]
    return problems


def _row_problems(row: PublishedRow) -> Iterator[str]:
    from mtvision.protocols import PROTOCOLS

    where = f"{row.protocol} / {row.method} / {row.backbone}"
    for certainty in (row.certainty, *row.doubts.values()):
        if certainty not in CERTAINTIES:
            yield f"{where}: certainty '{certainty}', expected one of {', '.join(CERTAINTIES)}."
    if row.provenance not in ("paper", "released"):
        yield f"{where}: provenance '{row.provenance}', expected paper or released."
    if row.protocol not in PROTOCOLS:
        yield f"{where}: no protocol has this id."
        return
    tasks = {task.name: task for task in PROTOCOLS[row.protocol].tasks}
    for task, scores in row.scores.items():
        if task not in tasks:
            yield f"{where}: the protocol has no task '{task}', it has {', '.join(tasks)}."
            continue
        for score, value in scores.items():
            yield from _value_problems(where, row, task, score, value)
            if (
                score == tasks[task].headline
                and SCORES[score].higher_is_better != tasks[task].higher_is_better
            ):
                yield f"{where}: {task}/{score} has another direction than the protocol's task."


def _value_problems(where: str, row: PublishedRow, task: str, score: str, value: float) -> Iterator[str]:
    low, high = PLAUSIBLE.get(score, (float("-inf"), float("inf")))
    if not low <= value <= high:
        yield f"{where}: {task}/{score} is {value:g}, outside {low:g} to {high:g}; wrong column or unit?"
    if score in NEEDS_EVALUATOR and task not in row.evaluators:
        yield f"{where}: {task}/{score} without evaluator; several are in use, name one (or 'unknown')."
    low, high = USUAL.get((row.protocol, f"{task}/{score}"), (float("-inf"), float("inf")))
    if not low <= value <= high and row.evaluator(task) == PROTOCOL_EVALUATOR:
        usual = f"the usual {low:g} to {high:g}"
        yield f"{where}: {task}/{score} is {value:g}, outside {usual}, yet evaluator 'protocol'."
