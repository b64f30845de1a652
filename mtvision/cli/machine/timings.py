"""Times of variants as ratios within a turn, a file of them, and what changed between two files."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvision.core.naming import ReportedError

Variants = Mapping[str, Callable[[], object]]
CONFIDENCE = 0.99
"""Of the interval of a change."""
LEAST = 0.03
"""Changes below 3 % are not flagged, whatever their interval says."""
MACHINE = ("processor", "instructions", "cores", "threads")
"""Facts of a file without which its ratios are not those of another one."""


class BenchmarkFileError(ReportedError, ValueError):
    """A file is no result of `mtvision benchmark --json`, or two of them have nothing in common."""


def ratios(variants: Variants, repeats: int) -> dict[str, list[float]]:
    """Time of each variant in parts of the first one's in the same turn, after one turn that is not counted.

    Args:
        variants: {name: what is timed}; the first one is the baseline.
        repeats: turns.

    Returns:
        {name: one ratio per turn}; those of the baseline are 1.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return within_turns(times)


def within_turns(times: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """{name: time in parts of the first one's, turn by turn}.

    >>> within_turns({"loop": [1.0, 2.0], "suite": [0.5, 0.5]})
    {'loop': [1.0, 1.0], 'suite': [0.5, 0.25]}
    """
    baseline = next(iter(times.values()))
    return {
        name: [value / base for value, base in zip(values, baseline, strict=True)]
        for name, values in times.items()
    }


def machine() -> dict[str, Any]:
    """What ratios depend on: processor, instruction set, cores, threads, load, code and torch."""
    import torch

    from mtvision.report.provenance import code_version, processor_model

    arch, capability = os.environ.get("MTVISION_ARCH"), torch.backends.cpu.get_cpu_capability()
    return {
        "processor": processor_model(),
        "instructions": f"kernels {arch}, torch {capability}" if arch else capability,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": _load(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "code": code_version(),
    }


def _load() -> list[float] | None:
    """Processes that wait, over 1, 5 and 15 minutes; None where the system does not tell."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


@dataclass(frozen=True)
class Change:
    """A variant in two files.

    Args:
        suite: of the benchmark.
        variant: of the suite.
        before: median ratio to the baseline.
        after: the same in the second file.
        low: end of the interval of after / before.
        high: the other one; both are NaN with fewer than two turns.
    """

    suite: str
    variant: str
    before: float
    after: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`slower` or `faster` where interval and 3 % say so, else `same`; `unknown` without an interval."""
        if not self.low <= self.high:
            return "unknown"
        factor = self.after / self.before
        if self.low > 1 and factor > 1 + LEAST:
            return "slower"
        return "faster" if self.high < 1 and factor < 1 / (1 + LEAST) else "same"


def change(suite: str, variant: str, before: Sequence[float], after: Sequence[float]) -> Change:
    """Compare turns of a variant by Welch's interval of the difference of their logarithms.

    >>> change("scan", "cpp", [0.10, 0.11, 0.10], [0.21, 0.20, 0.20]).verdict
    'slower'
    >>> change("scan", "cpp", [0.10, 0.14, 0.12], [0.13, 0.11, 0.15]).verdict
    'same'
    """
    middle = statistics.median(before), statistics.median(after)
    if min(len(before), len(after)) < 2:
        return Change(suite, variant, *middle, float("nan"), float("nan"))
    import numpy as np
    from scipy import stats

    logs = np.log(after), np.log(before)
    errors = [float(item.var(ddof=1)) / len(item) for item in logs]
    difference = float(logs[0].mean() - logs[1].mean())
    half = 0.0
    if sum(errors):
        parts = sum(error**2 / (len(item) - 1) for error, item in zip(errors, logs, strict=True))
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, sum(errors) ** 2 / parts)) * sum(errors) ** 0.5
    return Change(suite, variant, *middle, float(np.exp(difference - half)), float(np.exp(difference + half)))


def read(path: Path) -> dict[str, Any]:
    """A file that `mtvision benchmark --json` wrote: its machine, ratios per suite, lines of other suites.

    Raises:
        BenchmarkFileError: it is something else.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        suites = found["suites"]
        for variants in suites.values():
            for turns in variants.values():
                if not (turns and all(value > 0 for value in turns)):
                    raise ValueError(f"{turns!r} are no times")
        dict(found["machine"])
        lines = {name: [str(line) for line in part] for name, part in found.get("lines", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchmarkFileError(
            f"{path}: not written by `mtvision benchmark --json` ({type(error).__name__}: {error}). "
            "Measure again."
        ) from None
    return {"machine": found["machine"], "suites": suites, "lines": lines}


def differences_of_machines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line per fact of `MACHINE` that differs."""
    facts = [before["machine"], after["machine"]]
    return [
        f"{name}: {facts[0].get(name)} before, {facts[1].get(name)} after"
        for name in MACHINE
        if facts[0].get(name) != facts[1].get(name)
    ]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Every variant, besides baselines, that both files have.

    Raises:
        BenchmarkFileError: there is none.
    """
    found = [
        change(suite, variant, turns, after["suites"][suite][variant])
        for suite, variants in before["suites"].items()
        for variant, turns in list(variants.items())[1:]
        if variant in after["suites"].get(suite, {})
    ]
    if not found:
        raise BenchmarkFileError(
            f"The files have no variant in common: {', '.join(before['suites']) or 'nothing'} and "
            f"{', '.join(after['suites']) or 'nothing'}. Measure the same suites twice."
        )
    yield from found
