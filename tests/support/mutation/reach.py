"""Which tests reach which line, and how long each takes: one run of the suite under coverage.

A later run reads the result from a file. Cost files that changed since are run again, alone. In a module that
changed since, lines are found by their text.
"""

from __future__ import annotations

import ast
import difflib
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_COVERAGE = """
[run]
source = {package}
data_file = {folder}/data
parallel = true
context = ${{MTVISION_TEST-}}
"""


@dataclass
class Cost:
    """What one test costs.

    Attributes:
        seconds: alone, with the fixtures it shares with others.
        slow: whether it is marked as slow, so that `make fast-test` leaves it out.
    """

    seconds: float
    slow: bool


@dataclass
class Reach:
    """What one run of the suite showed.

    Attributes:
        tests: by node id; only those that passed.
        lines: {module: {line: node ids}}, lines that ran inside a test.
        sources: text of each module at the time.
        digests: of each test file at the time.
    """

    tests: dict[str, Cost] = field(default_factory=dict)
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write a compressed JSON file."""
        names = sorted(self.tests)
        index = {name: number for number, name in enumerate(names)}
        content = {
            "tests": {name: [self.tests[name].seconds, self.tests[name].slow] for name in names},
            "lines": {
                module: {line: [index[one] for one in found if one in index] for line, found in lines.items()}
                for module, lines in self.lines.items()
            },
            "sources": self.sources,
            "digests": self.digests,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        beside.write_bytes(gzip.compress(json.dumps(content).encode()))
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Reach:
        """Inverse of `save`; empty if there is no file."""
        if not path.is_file():
            return cls()
        content = json.loads(gzip.decompress(path.read_bytes()))
        names = list(content["tests"])
        return cls(
            {name: Cost(*values) for name, values in content["tests"].items()},
            {
                module: {int(line): [names[number] for number in found] for line, found in lines.items()}
                for module, lines in content["lines"].items()
            },
            content["sources"],
            content["digests"],
        )

    def forget(self, files: Iterable[str]) -> None:
        """Drop what the tests of these files showed."""
        gone = set(files)
        self.tests = {name: test for name, test in self.tests.items() if file_of(name) not in gone}
        for lines in self.lines.values():
            for number, found in lines.items():
                lines[number] = [name for name in found if file_of(name) not in gone]
        self.digests = {name: digest for name, digest in self.digests.items() if name not in gone}

    def tests_of(self, module: str, source: str, line: int) -> list[str]:
        """Tests that run the statement at a line.

        Some statements run when the module is imported: default values, class attributes, constants. They are
        reached by the tests that run their function, their class or, at module level, any line of the module.
        """
        lines = self._lines_now(module, source)
        found: set[str] = set()
        for number in lines_of(source, line):
            found.update(lines.get(number, ()))
        return [name for name in self.tests if name in found]

    def _lines_now(self, module: str, source: str) -> Mapping[int, Sequence[str]]:
        """The recorded lines under today's numbers."""
        recorded, before = self.lines.get(module, {}), self.sources.get(module)
        if before is None or before == source:
            return recorded
        old, new = before.splitlines(), source.splitlines()
        moved: dict[int, Sequence[str]] = {}
        for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            around = [name for number in range(a, b + 2) for name in recorded.get(number, ())]
            for number in range(c, d):
                moved[number + 1] = recorded.get(a + number - c + 1, ()) if tag == "equal" else around
        return moved


def file_of(test: str) -> str:
    """The file of a node id."""
    return test.split("::", 1)[0]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lines_of(source: str, line: int) -> range:
    """The lines whose running shows that the statement at `line` was run."""
    tree = ast.parse(source)
    chain = _around(tree, line)
    statement: ast.AST = chain[-1]
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        owner = next(
            (one for one in reversed(chain) if isinstance(one, ast.FunctionDef | ast.ClassDef)), None
        )
        if isinstance(owner, ast.FunctionDef) and not _runs_once(owner):
            return _own_lines(statement)
        statement = owner if isinstance(owner, ast.ClassDef) else tree
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return range(statement.body[0].lineno, (statement.end_lineno or 0) + 1)
    if isinstance(statement, ast.ClassDef):
        return range(statement.lineno, (statement.end_lineno or 0) + 1)
    return range(1, len(source.splitlines()) + 1)


def _runs_once(function: ast.FunctionDef) -> bool:
    """Whether results are kept: then only the first of many tests that use them runs the lines."""
    names = {ast.unparse(one).split("(")[0].rsplit(".", 1)[-1] for one in function.decorator_list}
    return not names.isdisjoint({"cache", "lru_cache", "cached_property"})


def _around(tree: ast.Module, line: int) -> list[ast.stmt]:
    """The statements around a line, outermost first."""
    chain: list[ast.stmt] = []
    node: ast.AST | None = tree
    while node is not None:
        inside = [one for one in ast.walk(node) if isinstance(one, ast.stmt) and one is not node]
        node = next((one for one in inside if _first(one) <= line <= (one.end_lineno or 0)), None)
        if node is not None:
            chain.append(node)
    return chain


def _first(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(one.lineno for one in decorators)])


def _own_lines(statement: Any) -> range:
    """Of a compound statement its head, of any other the whole."""
    body: list[Any] = getattr(statement, "body", [])
    end = body[0].lineno if body else (statement.end_lineno or statement.lineno) + 1
    return range(statement.lineno, max(end, statement.lineno + 1))


def record(root: Path, package: str, files: Sequence[str], workers: int) -> Reach:
    """Run test files under coverage, sub-processes included.

    Raises:
        RuntimeError: pytest itself failed. Failing tests are left out, with a line on stderr.
    """
    import coverage

    with tempfile.TemporaryDirectory(prefix="reach-") as name:
        folder = Path(name)
        settings = folder / "coverage.ini"
        settings.write_text(_COVERAGE.format(package=root / package, folder=folder))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests" / "support")]),
            "COVERAGE_PROCESS_START": str(settings),
            "MTVISION_RECORD": str(folder),
        }
        options = ["-p", "mutation.recorder", "-p", "no:cacheprovider", "-q", "--tb=short"]
        options += ["-n", str(workers), "--dist", "loadscope"] if workers > 1 else []
        line = [sys.executable, "-m", "pytest", *options, *files]
        code = subprocess.run(line, cwd=root, env=environment, check=False).returncode
        if code not in (0, 1, 5):
            raise RuntimeError(f"pytest ended with exit code {code}; its output is above.")
        data = coverage.Coverage(config_file=str(settings))
        data.combine(keep=True)
        tests, users = _costs(folder)
        reach = Reach(tests)
        reach.lines, reach.sources = _lines(data.get_data(), root, users)
        reach.digests = {one: digest(root / one) for one in files}
        return reach


def _costs(folder: Path) -> tuple[dict[str, Cost], dict[str, list[str]]]:
    """The tests that passed, and for each name that coverage was told those that it stands for.

    The name is that of a test, or of a fixture that several share, whose seconds count for each of them.
    """
    tests: list[dict[str, Any]] = []
    fixtures: dict[str, float] = {}
    for path in sorted(folder.glob("tests-*.json")):
        content = json.loads(path.read_text())
        tests += content["tests"]
        for name, seconds in content["fixtures"].items():
            fixtures[name] = max(seconds, fixtures.get(name, 0.0))
    found, users = {}, defaultdict(list)
    for one in tests:
        if one["failed"]:
            print(f"fails on the unchanged code, left out: {one['id']}", file=sys.stderr)
        else:
            shared = sum(fixtures.get(name, 0.0) for name in one["fixtures"])
            found[one["id"]] = Cost(round(one["seconds"] + shared, 3), one["slow"])
            for name in {one["id"], *one["fixtures"]}:
                users[name].append(one["id"])
    return found, users


def _lines(
    data: Any, root: Path, users: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[int, list[str]]], dict[str, str]]:
    lines: dict[str, dict[int, list[str]]] = defaultdict(dict)
    sources = {}
    for path in sorted(data.measured_files()):
        module = Path(path).relative_to(root).as_posix()
        sources[module] = Path(path).read_text()
        for number, contexts in data.contexts_by_lineno(path).items():
            found = sorted({test for name in contexts for test in users.get(name, ())})
            if found:
                lines[module][number] = found
    return dict(lines), sources


def merge(old: Reach, new: Reach) -> Reach:
    """`old` with what other test files showed; where a module changed in between, the new text counts."""
    for module, source in new.sources.items():
        if old.sources.get(module, source) != source:
            old.lines[module] = {
                number: list(found) for number, found in old._lines_now(module, source).items()
            }
        old.sources[module] = source
    for module, lines in new.lines.items():
        mine = old.lines.setdefault(module, {})
        for number, found in lines.items():
            mine[number] = sorted({*mine.get(number, ()), *found})
    old.tests.update(new.tests)
    old.digests.update(new.digests)
    return old
