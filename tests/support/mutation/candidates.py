"""All single changes of a module that cosmic-ray's operators can make, without those that cannot matter."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Position = tuple[int, int]  # line from 1, column from 0 in characters

_LOGGING = {"debug", "info", "warning", "error", "critical", "exception", "warn", "print_log"}
_UNTESTED_DECORATORS = {
    "abstractmethod",  # only stops the making of unfinished subclasses
    "cache",  # the result is the same, later
    "cached_property",
    "dataclass",
    "lru_cache",
    "overload",
    "runtime_checkable",
}
_NEED_ARGUMENTS = ("VariableReplacer", "VariableInserter")
_IDENTITY = (
    "_Is",
    "_IsNot",
)  # `==` against `is`: whether equal constants are one object is up to the interpreter


@dataclass(frozen=True)
class Candidate:
    """One possible change.

    Attributes:
        module: path from the root of the repository.
        scope: dotted name of the enclosing class and function, empty at module level.
        line, column: where the changed code begins.
        text: the line there, without indentation.
        repeat: 0 for the first such line in its scope, 1 for the second …
        operator: cosmic-ray's name of the change.
        occurrence: how many places of the module the operator passes before this one.
        variant: 0 for the first change that the operator knows here, 1 for the second.
    """

    module: str
    scope: str
    line: int
    column: int
    text: str
    repeat: int
    operator: str
    occurrence: int
    variant: int = 0

    @property
    def site(self) -> str:
        """What is changed, whatever replaces it. Independent of the line number and the module's folder."""
        family = self.operator.split("_")[0]
        name = self.module.rsplit("/", 1)[-1]
        return "|".join([name, self.scope, self.text, str(self.repeat), str(self.column), family])

    @property
    def content(self) -> str:
        """`site` and what replaces it."""
        return f"{self.site}|{self.operator}|{self.variant}"

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of `content`."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:12]


def candidates(module: str, source: str) -> list[Candidate]:
    """Every change of a module, in the order of its code."""
    lines = source.splitlines()
    repeats = _repeats(source)
    places = Places(source)
    variants: Counter[tuple[str, Position]] = Counter()
    found = []
    for operator, occurrence, (line, column) in _positions(source):
        variant = variants[operator, (line, column)]
        variants[operator, (line, column)] += 1
        if not places.matters((line, column)):
            continue
        text = lines[line - 1]
        one = Candidate(
            module=module,
            scope=places.scope(line),
            line=line,
            column=column - (len(text) - len(text.lstrip())),
            text=text.strip(),
            repeat=repeats[line],
            operator=operator,
            occurrence=occurrence,
            variant=variant,
        )
        found.append(one)
    return sorted(found, key=lambda one: (one.line, one.column, one.operator, one.occurrence))


def mutated(candidate: Candidate, source: str) -> str | None:
    """The module after the change; None if that is no Python or the same program."""
    from cosmic_ray.mutating import mutate_code

    text: str | None = mutate_code(source, _operators()[candidate.operator], candidate.occurrence)
    if text is None:
        return None
    try:
        changed = ast.dump(ast.parse(text))
        compile(text, candidate.module, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    return None if changed == ast.dump(ast.parse(source)) else text


@functools.cache
def _operators() -> dict[str, Any]:
    import parso  # noqa: F401  cosmic-ray imports a part of it first, which fails
    from cosmic_ray.plugins import get_operator, operator_names

    names = [name for name in operator_names() if not name.endswith(_NEED_ARGUMENTS)]
    return {name: get_operator(name)() for name in names if not _swaps_identity(name)}


@functools.cache
def _operators_of(kind: str) -> list[tuple[str, Any]]:
    """Those that may change a node of this kind. Most replace one binary operator or comparison."""
    elsewhere = {"ReplaceBinaryOperator": "operator", "ReplaceComparisonOperator": "comparison"}
    left_out = tuple(f"core/{name}" for name, own in elsewhere.items() if own != kind)
    return [(name, one) for name, one in _operators().items() if not name.startswith(left_out)]


def _swaps_identity(name: str) -> bool:
    if "ReplaceComparisonOperator" not in name:
        return False
    before, after = name.split("_")[1:]
    return ("Is" in before) != ("Is" in after)


def _positions(source: str) -> Iterator[tuple[str, int, Position]]:
    """Operator, occurrence and place, in the order in which cosmic-ray counts occurrences."""
    from cosmic_ray.ast import ast_nodes, get_ast

    counts: Counter[str] = Counter()
    for node in ast_nodes(get_ast(source)):
        for name, operator in _operators_of(node.type):
            for start, _ in operator.mutation_positions(node):
                if not _marks_keywords(node):
                    yield name, counts[name], start
                counts[name] += 1


def _marks_keywords(node: Any) -> bool:
    """Whether this is the bare `*` before keyword-only parameters, which cosmic-ray takes for a product."""
    return node.type == "operator" and node.parent.type in {"parameters", "lambdef"}


def _repeats(source: str) -> dict[int, int]:
    """{line: how many equal lines of its scope stand before it}"""
    places = Places(source)
    seen: Counter[tuple[str, str]] = Counter()
    repeats = {}
    for number, text in enumerate(source.splitlines(), 1):
        key = (places.scope(number), text.strip())
        repeats[number] = seen[key]
        seen[key] += 1
    return repeats


class Places:
    """Scopes and statements of a module, and the zones in which a change cannot matter.

    Those are annotations, imports, `__all__`, blocks under TYPE_CHECKING, texts of errors, warnings and
    log lines, and decorators that change no result.
    """

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.lines = source.splitlines()
        self.zones: list[tuple[Position, Position]] = []
        self.scopes: list[tuple[int, int, str]] = []
        self._visit(self.tree, "")

    def matters(self, position: Position) -> bool:
        """Whether a change at this place can change what the module does."""
        return not any(start <= position < end for start, end in self.zones)

    def scope(self, line: int) -> str:
        """Dotted name of the innermost class or function around a line."""
        inside = [(end - start, name) for start, end, name in self.scopes if start <= line <= end]
        return min(inside)[1] if inside else ""

    def _visit(self, node: ast.AST, scope: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope = f"{scope}.{node.name}" if scope else node.name
            self.scopes.append((node.lineno, node.end_lineno or node.lineno, scope))
        for part in _immaterial(node):
            self._exclude(part)
        for child in ast.iter_child_nodes(node):
            self._visit(child, scope)

    def _exclude(self, node: Any) -> None:
        start = self._characters(node.lineno, node.col_offset)
        column = start[1] - 1 if isinstance(node, ast.expr) and start[1] else start[1]  # the @ of a decorator
        self.zones.append(((start[0], column), self._characters(node.end_lineno, node.end_col_offset)))

    def _characters(self, line: int, column: int) -> Position:
        """`ast` counts columns in bytes."""
        return line, len(self.lines[line - 1].encode()[:column].decode(errors="ignore"))


def _immaterial(node: ast.AST) -> list[ast.AST]:
    parts: list[ast.AST | None] = []
    if isinstance(node, ast.arg | ast.AnnAssign):
        parts.append(node.annotation)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        parts += [one for one in node.decorator_list if _last_name(one) in _UNTESTED_DECORATORS]
        parts.append(getattr(node, "returns", None))
    elif isinstance(node, ast.Import | ast.ImportFrom):
        parts.append(node)
    elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        parts += [*node.exc.args, *node.exc.keywords]
    elif isinstance(node, ast.Assert):
        parts.append(node.msg)
    elif isinstance(node, ast.Call) and _last_name(node) in _LOGGING:
        parts += [*node.args, *node.keywords]
    elif isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
        parts += [node.test, *node.body]
    elif isinstance(node, ast.Assign) and any(_last_name(one) == "__all__" for one in node.targets):
        parts.append(node.value)
    return [part for part in parts if part is not None]


def _last_name(node: ast.AST) -> str:
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
