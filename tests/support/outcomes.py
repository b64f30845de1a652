"""Pages of documentation made from tests: what goes wrong, what should happen, what did.

Tests say it in markers, `fault(name, expected=…)`, `problem(kind, have=…, does=…)` and
`conformance(method, *properties)` (`conformance.py`):

    PYTHONPATH=tests/support python -m pytest -p outcomes -m fault --page fault=docs/reliability.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conformance import cells_of, page

PROBLEMS = {
    "values": "What a value means",
    "ids": "Many classes",
    "annotations": "Annotation files",
    "text": "Lists of ids",
    "files": "Names and folders",
    "sets": "Sets that cannot be right",
    "orientation": "Orientation",
    "predict": "Pictures and videos to predict",
    "options": "Tasks and options",
    "weights": "Checkpoints",
    "foreign": "Damaged and hostile files",
    "cannot": "What no program can know",
}
"""Kinds of problem, in the order of the page."""

HEADS = {
    "fault": """\
# What breaks, and what the suite does

Each row is a fault that tests inject on purpose, on the CPU and with gloo. `make fault-tests` makes this
page: the last column is what was seen in the last run.

| fault | what should happen | seen |
|---|---|---|
""",
    "problem": """\
# Problems with data, and what the suite does

Each row is something that people's files really have. Tests try it, the example and variations of it.
`make data-problems` makes this page: the last column is what was seen in the last run.
""",
}
FIGURES = "## Measured in the last run"
PROBLEM_TABLE = "| what people have | what the suite does | seen |\n|---|---|---|\n"


@dataclass
class Row:
    """One line of a page: the words of a marker, and outcomes of the tests that have it."""

    words: tuple[str, ...]
    outcomes: list[str] = field(default_factory=list)

    def line(self) -> str:
        failed, run = self.outcomes.count("failed"), len(self.outcomes) - self.outcomes.count("skipped")
        tried = f"{run} {'test' if run == 1 else 'tests'}"
        seen = f"{failed} of {tried} failed" if failed else f"as said, {tried}" if run else "not tried here"
        return f"| {' | '.join(word.replace('|', chr(92) + '|') for word in self.words)} | {seen} |\n"


MATRIX = "conformance"
"""Marker whose page is a matrix of methods and properties."""
WORDS = {"fault": ("name", "expected"), "problem": ("kind", "have", "does")}
"""What a marker says."""


def words_of(mark: pytest.Mark) -> tuple[str, ...]:
    """Of a marker.

    Raises:
        ValueError: words are missing, or the kind of a problem is unknown.
    """
    wanted = WORDS[mark.name]
    more = dict.fromkeys(mark.args[len(wanted) :])
    given = {**dict(zip(wanted, mark.args, strict=False)), **mark.kwargs, **more}
    if set(given) != set(wanted) or not all(isinstance(word, str) and word for word in given.values()):
        raise ValueError(f"marker {mark.name}: found {given}, expected the texts {', '.join(wanted)}.")
    if mark.name == "problem" and given["kind"] not in PROBLEMS:
        raise ValueError(f"marker problem: the kind {given['kind']!r} is none of {', '.join(PROBLEMS)}.")
    return tuple(str(given[name]) for name in wanted)


def rows_of(item: pytest.Item, marker: str) -> list[tuple[str, ...]]:
    """The rows, or cells, of a page that a test counts for."""
    marks = list(item.iter_markers(marker))
    if marker != MATRIX:
        return [words_of(mark) for mark in marks]
    call = vars(item).get("callspec")
    params = {} if call is None else {**call.params, "id": call.id}
    return [cell for mark in marks for cell in cells_of(mark.args[0], mark.args[1:], params)]


def page_of(marker: str, rows: Sequence[Row], measured: Sequence[str] = ()) -> str:
    """Text of a page.

    Args:
        marker: of the tests.
        rows: of its tables.
        measured: paragraphs that tests recorded as the property `measured`.
    """
    if marker == MATRIX:
        return page({row.words: row.outcomes for row in rows})
    if marker == "fault":
        table = "".join(row.line() for row in sorted(rows, key=lambda row: row.words))
        figures = "".join(f"\n{text}\n" for text in measured)
        return HEADS[marker] + table + (f"\n{FIGURES}\n{figures}" if figures else "")
    parts = [HEADS[marker]]
    for kind, title in PROBLEMS.items():
        chosen = sorted((row for row in rows if row.words[0] == kind), key=lambda row: row.words)
        if chosen:
            lines = "".join(Row(row.words[1:], row.outcomes).line() for row in chosen)
            parts.append(f"\n## {title}\n\n{PROBLEM_TABLE}{lines}")
    return "".join(parts)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--page fault=FILE`."""
    parser.addoption("--page", default=None, help="MARKER=FILE: write a page of the tests with this marker")


class Writer:
    """Collects outcomes of one session and writes the page at its end."""

    def __init__(self, marker: str, file: Path) -> None:
        self.marker, self.file = marker, file
        self.rows: dict[tuple[str, ...], Row] = {}
        self.measured: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Reports of other processes carry no markers, but these properties."""
        for item in items:
            found = rows_of(item, self.marker)
            item.user_properties += [(self.marker, words) for words in found]
            self.rows.update({words: self.rows.get(words, Row(words)) for words in found})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count the call, and a setup that did not end in one."""
        if report.when != "call" and report.outcome == "passed":
            return
        for name, words in report.user_properties:
            if name == "measured":
                self.measured.append(str(words))
            if name == self.marker:
                row = self.rows.setdefault(tuple(words), Row(tuple(words)))
                row.outcomes.append(report.outcome)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page, in the process that has all reports."""
        if not is_worker(session.config):
            self.file.write_text(page_of(self.marker, list(self.rows.values()), sorted(self.measured)))


def is_worker(config: Any) -> bool:
    """Whether this is a process of pytest-xdist that runs tests for another."""
    return "workerinput" in vars(config)


def pytest_configure(config: pytest.Config) -> None:
    """Listen if a page is wanted."""
    wanted = config.getoption("--page")
    if wanted:
        marker, _, file = str(wanted).partition("=")
        if marker not in (*HEADS, MATRIX) or not file:
            kinds = " or ".join((*HEADS, MATRIX))
            raise pytest.UsageError(f"--page {wanted}: expected {kinds}, =, and a file.")
        config.pluginmanager.register(Writer(marker, Path(file).resolve()))


def rows_in_page(text: str) -> set[tuple[str, ...]]:
    """First two columns of the tables of a page, without those of figures at its end."""
    lines = [
        line
        for line in text.split(FIGURES)[0].splitlines()
        if line.startswith("| ") and not line.startswith("|--")
    ]
    cells = [tuple(line.replace(chr(92) + "|", "\0").strip("| ").split(" | ")[:2]) for line in lines]
    heads = {"fault", "what people have"}
    return {tuple(cell.replace("\0", "|") for cell in row) for row in cells if row[0] not in heads}
