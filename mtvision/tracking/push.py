"""Records to Weights & Biases: one run per record, and one table of all of them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.report.comparable.key import common_facts, group_records, key_digest
from mtvision.report.display import display_of
from mtvision.report.record import Record
from mtvision.tracking.loggers import record_summary
from mtvision.tracking.wandb_client import import_wandb, start_wandb_run

_log = logging.getLogger("mtvision")

TEXT_COLUMNS = (
    "protocol",
    "method",
    "backbone",
    "provenance",
    "source",
    "config",
    "seed",
    "commit",
    "created",
    "protocol digest",
    "test images",
    "test fingerprint",
    "replaced",
    "comparable",
)
"""Columns of the table that are no number; rows compare only if `comparable` is equal."""


@dataclass(frozen=True)
class Pushed:
    """Runs and files written by a push.

    Args:
        runs: how many runs, the one that holds the table included.
        folders: of runs that were written offline.
        failed: {name of a run: why it was not written}.
    """

    runs: int
    folders: tuple[Path, ...]
    failed: Mapping[str, str]

    @property
    def hint(self) -> str:
        """The command that uploads what was written offline; empty if everything is online."""
        return "wandb sync " + " ".join(str(folder) for folder in self.folders) if self.folders else ""


def push(records: Sequence[Record], *, project: str, folder: Path, entity: str | None = None) -> Pushed:
    """Write one W&B run per record and the summary table as an artifact.

    A record's run has its scores, gain and cost in the summary. Its config has the keys to group and filter
    by (protocol, method, backbone, seed, …; the whole record under `record`). Its group begins with the hash
    of what must be equal to compare (`comparable` in the config and in the table). Its id follows from the
    content, so that pushing again updates it. Offline without a key or server; see
    `mtvision.tracking.wandb_client`.

    Args:
        records: what to push; protocols may differ.
        project: W&B project.
        folder: receives `wandb/`.
        entity: W&B user or team, by default the key's.

    Raises:
        ValueError: there are no records.
        ImportError: the client is not installed.
    """
    if not records:
        raise ValueError("there are no records to push; give record files or folders that hold some.")
    wandb = import_wandb()
    folders: list[Path] = []
    failed: dict[str, str] = {}
    common: dict[str, Any] = {"project": project, **({"entity": entity} if entity else {})}
    names = comparable_names(records)
    for record, comparable in zip(records, names, strict=True):
        name = run_name(record)
        try:
            with foreign_errors():
                run = start_wandb_run(wandb, folder, **common, **_run_options(record, comparable))
                run.summary.update(_finite(record_summary(record)))
                folders += _close(run)
        except ForeignError as error:  # one run that fails must not lose the others
            failed[name] = str(error)
    try:
        with foreign_errors():
            folders += _push_table(wandb, records, folder, common)
    except ForeignError as error:  # as above
        failed["results table"] = str(error)
    return Pushed(len(records) + 1 - len(failed), tuple(folders), failed)


def run_name(record: Record) -> str:
    """`method / backbone / protocol, seed 0`."""
    seed = "" if record.seed is None else f", seed {record.seed}"
    return f"{record.method} / {record.backbone} / {record.protocol}{seed}"


def comparable_names(records: Sequence[Record]) -> list[str]:
    """One short text per record, equal for those that compare: `key_digest`, and a number where needed."""
    names: dict[int, str] = {}
    taken: Counter[str] = Counter()
    for group in group_records(records):
        key = key_digest(group.records[0])
        taken[key] += 1
        name = key if taken[key] == 1 else f"{key}-{taken[key]}"
        names.update({id(record): name for record in group.records})
    return [names[id(record)] for record in records]


def _run_options(record: Record, comparable: str) -> dict[str, Any]:
    content = json.dumps(record.to_json(), sort_keys=True)
    return {
        "id": "record-" + hashlib.sha256(content.encode()).hexdigest()[:12],
        "name": run_name(record),
        "group": f"{comparable} / {record.protocol} / {record.method} / {record.backbone}"[:128],
        "job_type": "record",
        "tags": [record.protocol[:64], record.provenance],
        "config": {
            **{name: value for name, value in _texts(record, comparable).items() if name != "created"},
            "tasks": list(record.task_names),
            "effective_batch": record.effective_batch,
            "precision": (record.precision or {}).get("train"),
            "iterations": (record.training or {}).get("iterations"),
            "headlines": {entry["name"]: entry["headline"] for entry in record.tasks},
            "evaluators": {entry["name"]: entry["evaluator"] for entry in record.tasks},
            "record": record.to_json(),
        },
    }


def _texts(record: Record, comparable: str) -> dict[str, Any]:
    return {
        "protocol": record.protocol,
        "method": record.method,
        "backbone": record.backbone,
        "provenance": record.provenance,
        "source": record.source,
        "config": (record.config or {}).get("name", ""),
        "seed": record.seed,
        "commit": (record.code or {}).get("commit") or "",
        "created": record.created,
        **{
            name: text
            for name, text in common_facts(record).items()
            if name not in ("protocol", "provenance")
        },
        "replaced": "; ".join(f"{item['table']} {item['name']} by {item['by']}" for item in record.replaced),
        "comparable": comparable,
    }


def table_rows(records: Sequence[Record]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the summary table: texts, then every number as stored, None where there is none.

    A headline score's column says which way is better, e.g. `depth/rmse ↓`.
    """
    numbers: dict[str, str] = {}
    for record in records:
        for name in record_summary(record):
            task, _, score = name.partition("/")
            arrow = ""
            if task in record.task_names:
                direction = display_of(record.task(task), score).higher_is_better
                arrow = {True: " ↑", False: " ↓", None: ""}[direction]
            numbers.setdefault(name, name + arrow)
    rows = []
    for record, comparable in zip(records, comparable_names(records), strict=True):
        values = _finite(record_summary(record))
        rows.append([*_texts(record, comparable).values(), *(values.get(name) for name in numbers)])
    return [*TEXT_COLUMNS, *numbers.values()], rows


def _push_table(wandb: Any, records: Sequence[Record], folder: Path, common: Mapping[str, Any]) -> list[Path]:
    columns, rows = table_rows(records)
    run = start_wandb_run(wandb, folder, **common, name="results", job_type="table")
    table = wandb.Table(columns=columns, data=rows)
    artifact = wandb.Artifact("results", type="table", metadata={"records": len(records)})
    artifact.add(table, "results")
    run.log_artifact(artifact)
    run.log({"results": table})
    return _close(run)


def _close(run: Any) -> list[Path]:
    """Finish; the run's folder if it is offline."""
    offline = bool(run.offline)
    folder = Path(run.dir).parent
    run.finish()
    return [folder] if offline else []


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isfinite(value)}
