"""First difference of two runs: losses of every step, scores and found architectures, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvision.core.files.json_file import read_json

Values = dict[str, Any]
"""{name: number or text}."""


@dataclass(frozen=True)
class Difference:
    """First difference of two runs.

    Args:
        file: `…/losses.jsonl`, `…/record.json` or `architecture.json`.
        step: of a loss; None for scores.
        name: of the loss or score.
        a: value at the first revision; None if only the second one has it.
        b: value at the second revision.
        relative: |a - b| / max(|a|, |b|), None for what is no number.
    """

    file: str
    step: int | None
    name: str
    a: Any
    b: Any
    relative: float | None

    def __str__(self) -> str:
        where = self.name if self.step is None else f"step {self.step}, {self.name}"
        ratio = "" if self.relative is None else f" (relative difference {self.relative:.2g})"
        return f"{self.file}: {where}: {self.a!r} against {self.b!r}{ratio}"


@dataclass(frozen=True)
class Comparison:
    """The result of one config.

    Args:
        config: its path, or both paths.
        losses: values in `losses.jsonl` that both runs have, over all steps.
        scores: score values that both runs have.
        differences: the first one of every file; empty if all values are identical.
        problems: {`a` or `b`: why a run failed}.
    """

    config: str
    losses: int
    scores: int
    differences: tuple[Difference, ...]
    problems: Mapping[str, str]

    @property
    def identical(self) -> bool:
        """Both runs ended, both wrote losses, and all values are the same to the last bit."""
        return not self.differences and not self.problems and self.losses > 0

    def __str__(self) -> str:
        if self.identical:
            return f"identical  {self.config}: {self.losses} values of losses, {self.scores} scores"
        lines = [f"{'FAILED' if self.problems else 'DIFFERENT':<9}  {self.config}"]
        lines += [f"    revision {side}: {text}" for side, text in self.problems.items()]
        lines += [f"    {item}" for item in self.differences]
        if not self.differences and not self.problems:
            lines.append("    neither run wrote a loss")
        return "\n".join(lines)


def compare_folders(name: str, a: Path, b: Path, problems: Mapping[str, str] | None = None) -> Comparison:
    """Compare all losses, scores and found architectures of two work dirs.

    Args:
        name: of the config.
        a: a work dir.
        b: another one.
        problems: {`a` or `b`: why a run failed}; then nothing is compared.
    """
    if problems:
        return Comparison(name, 0, 0, (), problems)
    counts, differences = {"losses": 0, "scores": 0}, []
    kinds = (("losses.jsonl", "losses", _losses), ("record.json", "scores", _scores))
    for pattern, kind, read in (*kinds, ("architecture.json", "scores", _architecture)):
        found = sorted({path.relative_to(root) for root in (a, b) for path in root.rglob(pattern)})
        for path in found:
            lines_a, lines_b = (read(root / path) if (root / path).is_file() else {} for root in (a, b))
            counts[kind] += sum(
                len(values.keys() & lines_b.get(step, {}).keys()) for step, values in lines_a.items()
            )
            first = first_difference(str(path), lines_a, lines_b)
            differences += [first] if first else []
    return Comparison(name, counts["losses"], counts["scores"], tuple(differences), {})


def first_difference(
    file: str, a: Mapping[int | None, Values], b: Mapping[int | None, Values]
) -> Difference | None:
    """The first value, by step and name, that is not the same to the last bit; None if all are.

    >>> str(first_difference("losses.jsonl", {1: {"total": 2.0}}, {1: {"total": 2.5}}))
    'losses.jsonl: step 1, total: 2.0 against 2.5 (relative difference 0.2)'
    """
    for step in sorted(a.keys() | b.keys(), key=lambda item: item or 0):
        left, right = a.get(step, {}), b.get(step, {})
        for name in sorted(left.keys() | right.keys()):
            x, y = left.get(name), right.get(name)
            if repr(x) != repr(y):  # NaN equals NaN, -0.0 is not 0.0, 1 is not 1.0
                relative = None
                if isinstance(x, int | float) and isinstance(y, int | float):
                    relative = abs(x - y) / max(abs(x), abs(y), 5e-324)  # 0.0 and -0.0 differ by 0
                return Difference(file, step, name, x, y, relative)
    return None


def _losses(path: Path) -> dict[int | None, Values]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line.pop("iter"): line for line in lines}


def _scores(path: Path) -> dict[int | None, Values]:
    record = read_json(path)
    return {None: dict(_flat(record["scores"]))}


def _architecture(path: Path) -> dict[int | None, Values]:
    found = read_json(path)
    found.pop("search", None)  # seconds, hashes of files
    return {None: dict(_flat(found))}


def _flat(data: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted path, value) of all leaves of nested dicts and lists."""
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else None
    if items is None:
        return [(prefix, data)]
    return [leaf for key, item in items for leaf in _flat(item, f"{prefix}.{key}".lstrip("."))]
