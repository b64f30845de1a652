"""The pages of a shared network: a model card, and its scores as the hub reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import yaml

from mtvision.report.display import display_of
from mtvision.report.record import Record
from mtvision.report.table import render_table

TAGS = ("mtvision", "multi-task-learning", "dense-prediction")
PIPELINES = (("depth", "depth-estimation"), ("semseg", "image-segmentation"))
"""(task, what the hub calls it); the first that a network has is its pipeline."""


def model_card(
    name: str, notes: Mapping[str, Any], record: Record | None = None, *, size: int | None = None
) -> str:
    """The `README.md` of a shared network.

    Args:
        name: `owner/name`, or any title.
        notes: of its file: `config`, `protocol`, `tasks`, `licence`.
        record: its scores; without one the card says that there are none.
        size: bytes of the weights.

    Returns:
        YAML between `---`, then Markdown.
    """
    tasks = [str(task) for task in notes.get("tasks", ())]
    head: dict[str, Any] = {"library_name": "mtvision", "tags": [*TAGS, *tasks]}
    if notes.get("licence"):
        head["license"] = str(notes["licence"]).lower()
    head |= next(({"pipeline_tag": kind} for task, kind in PIPELINES if task in tasks), {})
    source = f"hf:{name}" if "/" in name else name
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip("\n"),
        "---",
        f"# {name}",
        "",
        f"One network that predicts {_listed(tasks)} from one image, of "
        "[mtvision](https://github.com/mtvision/mtvision).",
        "",
        "```python",
        "import mtvision",
        "",
        f'model = mtvision.load("{source}")',
        'result = model.predict("photo.jpg")',
        f'result["{tasks[0] if tasks else "depth"}"]  # an array of the picture\'s size',
        'result.save("out/")',
        "```",
        "",
        *_facts(notes, record, size),
        "",
        *_scores(record),
        "## Config",
        "",
        "```python",
        str(notes.get("config", "")).strip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def eval_results(record: Record) -> str:
    """The scores of a record as YAML of the hub's `.eval_results/`.

    Each entry is the headline score of a task. Its data set is the protocol, with its digest as revision, so
    that numbers of other rules do not count as the same.

    Args:
        record: of the shared weights.
    """
    entries = []
    for task in record.tasks:
        value = record.scores.get(task["name"], {}).get(task["headline"])
        if value is None or not isfinite(value):
            continue
        dataset = {"id": f"mtvision/{record.protocol}", "task_id": task["name"]}
        if record.protocol_digest:
            dataset["revision"] = record.protocol_digest
        notes = f"{task['headline']}; {'higher' if task['higher_is_better'] else 'lower'} is better"
        entries.append({"dataset": dataset, "value": value, "date": record.created, "notes": notes})
    return str(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))


def _listed(names: Sequence[str]) -> str:
    plain = [name.replace("_", " ") for name in names]
    return " and ".join([", ".join(plain[:-1]), plain[-1]]) if len(plain) > 1 else "".join(plain)


def _facts(notes: Mapping[str, Any], record: Record | None, size: int | None) -> list[str]:
    rows = {
        "protocol": notes.get("protocol"),
        "licence of the weights": notes.get("licence") or "not stated",
        "iterations": notes.get("iter"),
        "file": None if size is None else f"model.safetensors, {size / 1e6:.1f} MB, no code in it",
    }
    if record is not None:
        cost = record.cost or {}
        parameters, macs = cost.get("parameters", {}).get("total"), cost.get("macs", {}).get("total")
        rows |= {
            "backbone": record.backbone,
            "parameters": None if parameters is None else f"{parameters / 1e6:.2f} M",
            "multiply-accumulates": None if macs is None else f"{macs / 1e9:.2f} G",
            "command": f"`{record.command}`" if record.command else None,
        }
    lines = ["| | |", "|:---|:---|"]
    return lines + [f"| {name} | {value} |" for name, value in rows.items() if value]


def _scores(record: Record | None) -> list[str]:
    if record is None:
        return ["No record lies beside these weights, so this page has no scores.", ""]
    headline = [
        f"* {task['name']}: {display_of(task, task['headline']).title} "
        f"{display_of(task, task['headline']).text(record.scores[task['name']][task['headline']])}"
        for task in record.tasks
        if task["headline"] in record.scores.get(task["name"], {})
    ]
    table = render_table([record], "markdown")
    return ["## Scores", "", *headline, "", table.strip(), ""]
