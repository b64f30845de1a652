"""Results on disk, one JSON object a line, and which of them still hold."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass
class Result:
    """What became of one change.

    Attributes:
        id: of the candidate, from its code alone.
        before, after: the changed lines without indentation.
        source: digest of the unchanged module.
        outcome: `killed`, `survived` or `unreached` (no test runs the line).
        by: the test that failed; empty for survivors.
        slow: whether that test is marked as slow.
        reason: last line of the failure, or `timeout`.
        passed: {test file: digest} of the tests that this change survived.
    """

    id: str
    module: str
    line: int
    operator: str
    before: str
    after: str
    source: str
    outcome: str = ""
    by: str = ""
    slow: bool = False
    reason: str = ""
    seconds: float = 0.0
    passed: dict[str, str] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """`balance` for `mtvision/balance/log_sum.py`."""
        return self.module.split("/")[1]

    def diff(self) -> str:
        """Two or more lines, marked with - and +."""
        marked = [("-", self.before), ("+", self.after)]
        return "\n".join(f"{mark} {line}" for mark, text in marked for line in text.splitlines())


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, each without indentation, with single spaces."""
    old, new = before.splitlines(), after.splitlines()
    parts = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    different = [part for part in parts if part[0] != "equal"]
    taken = [line for _, a, b, _, _ in different for line in old[a:b]]
    put = [line for _, _, _, c, d in different for line in new[c:d]]
    before, after = (
        "\n".join(" ".join(line.split()) for line in lines if line.strip()) for lines in (taken, put)
    )
    return before, after


def code_digest(source: str) -> str:
    """Twelve hexadecimal digits of a module's code, without docstrings, comments and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def _is_text(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


class Session:
    """Results of all runs; the newest one of a change counts.

    Args:
        path: a JSON-lines file, made on the first result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[str, Result] = {}
        if path.is_file():
            for line in path.read_text().splitlines():
                one = Result(**json.loads(line))
                self.results[one.id] = one

    def add(self, result: Result) -> None:
        """Write at once: a run may be stopped at any time."""
        self.results[result.id] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def known(self, wanted: Result, files: Mapping[str, str]) -> Result | None:
        """An earlier result of the same module and change, with test files that are as they were.

        Args:
            wanted: a result without an outcome.
            files: {test file: digest today} of the tests that reach the change.

        Returns:
            None if the module or the test that killed the change is another one today. The earlier result of
            a survivor holds as far as `passed` equals `files`.
        """
        found = self.results.get(wanted.id)
        if found is None or found.source != wanted.source or found.module != wanted.module:
            return None
        if found.outcome == "killed":
            name = found.by.split("::", 1)[0]
            return found if name and files.get(name) == found.passed.get(name) else None
        return found


@dataclass(frozen=True)
class Equivalent:
    """A change after which the program does the same, or differs only in what no test should pin."""

    module: str
    before: str
    after: str
    reason: str

    def matches(self, result: Result) -> bool:
        """Whether the result is of this change, wherever its line stands today."""
        mine = (self.module, self.before.strip(), self.after.strip())
        return mine == (result.module, result.before.strip(), result.after.strip())


def read_equivalents(path: Path) -> list[Equivalent]:
    """The list of changes that nobody should try to kill.

    Raises:
        ValueError: an entry lacks a field or has one too many.
    """
    names = {one.name for one in fields(Equivalent)}
    entries = tomllib.loads(path.read_text()).get("equivalent", []) if path.is_file() else []
    for number, entry in enumerate(entries, 1):
        if set(entry) != names or not entry["reason"].strip():
            raise ValueError(
                f"{path}, entry {number}: expected the fields {sorted(names)}, found {sorted(entry)}."
            )
    return [Equivalent(**entry) for entry in entries]


def split(
    results: Iterable[Result], equivalents: Iterable[Equivalent]
) -> tuple[list[Result], list[tuple[Result, Equivalent]]]:
    """Results that count, and those of equivalent changes. A killed change counts, whatever the list says."""
    listed = list(equivalents)
    counting, same = [], []
    for one in results:
        entry = next((entry for entry in listed if entry.matches(one)), None)
        if entry is None or one.outcome == "killed":
            counting.append(one)
        else:
            same.append((one, entry))
    return counting, same
