"""A page of Markdown from files of `mtvision benchmark --json`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = """\
# Measured speed

<!-- Written by `python tools/benchmark.py page FILES`. -->

Every number is a ratio to the first row of its table, taken within a turn. The limit below a table comes from
profiles; [speed.md](speed.md) has the analyses."""
FACTS = ("processor", "instructions", "cores", "threads", "load", "system", "torch", "code")


Said = Mapping[str, tuple[str, str]]
"""{suite: what it measures, what limits it}."""


def page(files: Sequence[Mapping[str, Any]], said: Said) -> str:
    """The page of some runs, one part per file.

    Args:
        files: as `mtvision.cli.machine.timings.read` gives them.
        said: of each suite.

    Returns:
        Markdown, with the machine of each run and a table per suite. A table has the median, least and
        largest ratio of all turns, and the speed-up. Suites that measure memory are given as printed.
    """
    return "\n\n".join([HEAD, *(_run(file, said) for file in files)]) + "\n"


def _run(file: Mapping[str, Any], said: Said) -> str:
    facts = file["machine"]
    parts = [f"## {facts.get('processor', 'unknown processor')}, {facts.get('instructions', 'unknown')}"]
    parts.append(
        "\n".join(f"* {name}: {_plain(facts[name])}" for name in FACTS if facts.get(name) is not None)
    )
    for name, turns in file["suites"].items():
        title, limit = said.get(name, ("", ""))
        count = min(len(values) for values in turns.values())
        parts += [f"### {name}", f"{title} {count} turns.".strip(), _table(turns), limit]
    for name, lines in file["lines"].items():
        title, limit = said.get(name, ("", ""))
        parts += [f"### {name}", title, "\n".join(["```text", *lines, "```"]), limit]
    return "\n\n".join(part for part in parts if part)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(variants: Mapping[str, Sequence[float]]) -> str:
    table = ["| variant | median | of all turns | speed-up |", "|---|--:|--:|--:|"]
    for variant, turns in variants.items():
        middle = statistics.median(turns)
        table.append(
            f"| {variant} | {middle:.3g} | {min(turns):.3g} to {max(turns):.3g} | {1 / middle:.2f} |"
        )
    return "\n".join(table)
