"""The leaderboard as one HTML file: style, script, numbers and pictures are inside, nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from mtvision import __version__
from mtvision.report.display import display_of
from mtvision.report.grid import Cell, Column
from mtvision.report.leaderboard.details import Pictures, level_text, row_detail
from mtvision.report.leaderboard.rows import BoardRow, Section, build_sections, latency_condition
from mtvision.report.leaderboard.runs import RunFolders
from mtvision.report.published import CERTAINTIES
from mtvision.report.record import Record
from mtvision.report.render import plain
from mtvision.runtime.atomic import write_text

STYLES = ("style.css",)
SCRIPTS = ("dom.js", "table.js", "chart.js", "drawer.js", "compare.js", "main.js")
GENERATOR = '<meta name="generator" content="mtvision leaderboard">'
"""Tells a page of ours, which may be replaced, from any other."""
PROVENANCES = {
    "ours": "trained and scored with this package",
    "released": "the authors' weights",
    "paper": "typed from a publication",
    "smoke": "a tiny run, not comparable with published results",
}


def build_page(
    records: Sequence[Record],
    *,
    runs: RunFolders | None = None,
    certainties: Sequence[str] = CERTAINTIES,
    baseline: str | None = None,
    every_protocol: bool = False,
    title: str = "mtvision leaderboard",
) -> str:
    """The page as text; the same records and runs give the same page, byte by byte.

    Args:
        records: of any protocols; each protocol has a table of its own.
        runs: where curves and pictures are looked for; none by default.
        certainties: of the published rows to show; those that are not `stated` are hidden at first.
        baseline: see `mtvision.report.leaderboard.rows.build_sections`.
        every_protocol: also protocols without records.
        title: of the page.

    Raises:
        ValueError: there is nothing to show.
        MixedRecordsError: records of one protocol do not fit into one table.
    """
    sections = build_sections(
        records, certainties=certainties, baseline=baseline, every_protocol=every_protocol
    )
    if not sections:
        raise ValueError("there are no records to show; give record files or folders that hold some.")
    folders = runs or RunFolders()
    pictures = Pictures()
    details = {
        row.id: row_detail(row, section, folders, pictures) for section in sections for row in section.rows
    }
    style = "\n".join(_asset(name) for name in STYLES)
    script = "\n".join(["'use strict';", *(_asset(name) for name in SCRIPTS)])
    rows = [row for section in sections for row in section.rows]
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["plain"] = plain
    return environment.get_template("page.html.j2").render(
        title=plain(title),
        version=__version__,
        sections=[_section(section) for section in sections],
        backbones=sorted({plain(row.records[0].backbone) for row in rows}, key=str.lower),
        provenances=[(name, text) for name, text in PROVENANCES.items() if name in _provenances(rows)],
        unverified=sum(not row.verified for row in rows),
        counts={"records": len(records), "rows": len(rows), "protocols": len(sections)},
        newest=max((record.created for record in records), default="")[:10],
        generator=GENERATOR,
        style=style,
        script=script,
        policy=_policy(style, script),
        details=htmlsafe_json_dumps({"rows": details, "pictures": pictures.uris}, dumps=_dumps),
    )


def write_page(out: str | Path, text: str) -> Path:
    """Write `index.html` into a folder, atomically; returns the file.

    Raises:
        FileExistsError: an `index.html` is there that is no such page.
    """
    file = Path(out) / "index.html"
    if file.is_file() and GENERATOR.encode() not in file.read_bytes():
        raise FileExistsError(
            f"{file} is no page of `mtvision leaderboard` and is kept. Give another folder, or delete it."
        )
    write_text(file, text)
    return file


def _asset(name: str) -> str:
    place = resources.files("mtvision.report.leaderboard") / "assets" / name
    return place.read_text(encoding="utf-8")


def _dumps(value: Any, **_: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _policy(style: str, script: str) -> str:
    """A content security policy under which only this style and this script run, and nothing is fetched."""

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _provenances(rows: Sequence[BoardRow]) -> set[str]:
    return {row.records[0].provenance for row in rows}


def _section(section: Section) -> dict[str, Any]:
    """A section as the template reads it: text only, apart from numbers to sort by."""
    groups = [
        {
            "label": plain(label),
            "constants": [
                [_cell(cell) for cell in cells] for group, cells in section.constants if group == label
            ],
            "rows": [_row(row, section) for row in section.rows if row.group == label],
        }
        for label in section.groups
    ]
    return {
        "protocol": plain(section.protocol),
        "title": plain(section.title),
        "reading": [plain(line) for line in section.reading],
        "notes": [(mark, plain(text)) for mark, text in section.notes],
        "columns": [
            {
                "key": plain(column.key),
                "title": plain(column.title),
                "group": plain(column.group),
                "arrow": column.arrow,
                "direction": {True: "up", False: "down", None: ""}[column.higher_is_better],
                "numeric": column.numeric,
                "factor": f"{_factor(section, column):g}",
                "label": plain(f"{column.group} {column.title} {column.arrow}".strip()),
            }
            for column in section.columns
        ],
        "groups": groups,
        "only_smoke": all(row.kind == "smoke" for row in section.rows),
        "level": any(row.level for row in section.rows),
    }


def _factor(section: Section, column: Column) -> float:
    """What a column's stored numbers are multiplied with to be printed."""
    task, score = _task_and_score(column)
    for row in section.rows:
        if score and task in row.records[0].task_names:
            return display_of(row.records[0].task(task), score).factor
    return 1.0


def _row(row: BoardRow, section: Section) -> dict[str, Any]:
    first = row.records[0]
    config = (first.config or {}).get("name", "")
    words = (row.method, first.backbone, first.provenance, row.certainty, first.source, config)
    return {
        "id": row.id,
        "kind": row.kind,
        "group": plain(row.group),
        "method": plain(row.method),
        "backbone": plain(first.backbone),
        "provenance": first.provenance,
        "certainty": row.certainty,
        "verified": row.verified,
        "search": plain(" ".join(words)).lower(),
        "device": plain(latency_condition(first)),
        "colour": row.colour,
        "family": plain(row.family),
        "cells": [
            {**_cell(cell), "level": level_text(row, *_task_and_score(column))}
            for column, cell in zip(section.columns, row.cells, strict=True)
        ],
    }


def _task_and_score(column: Column) -> tuple[str, str]:
    task, _, score = column.key.partition("/")
    return task, score


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "text": plain(cell.text),
        "value": "" if cell.value is None else repr(cell.value),
        "spread": cell.spread,
        "std": "" if cell.std is None else repr(cell.std),
        "rank": {0: "", 1: "best", 2: "second"}[cell.rank],
        "mark": cell.mark,
    }
