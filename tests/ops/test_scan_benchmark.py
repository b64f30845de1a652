"""The benchmark measures what it says, and does not start what memory cannot hold."""

from __future__ import annotations

import math

from mtvision.ops import benchmark_scan
from mtvision.ops.scan import benchmark

SMALL = (1, 8, 70, 4, 2)


def test_table_has_ratios_to_the_reference(capsys, monkeypatch):
    monkeypatch.setattr(
        benchmark, "measure_2d", lambda size, repeats: dict.fromkeys(("stacked", "walked"), (1, 1, 1))
    )
    timings = benchmark_scan([SMALL], ["reference", "torch"], repeats=1)
    assert [(t.name, t.shape) for t in timings] == [("reference", SMALL), ("torch", SMALL)]
    assert all(t.forward > 0 and t.both > t.forward * 0.1 for t in timings)
    text = capsys.readouterr().out
    assert "(B, D, L, N, G) = (1, 8, 70, 4, 2)" in text
    assert text.index("reference") < text.index("torch")


def test_the_reference_is_not_started_without_memory(monkeypatch):
    monkeypatch.setattr(benchmark, "_available", lambda: 1000.0)
    timing = benchmark.measure("reference", SMALL, 1)
    assert math.isnan(timing.forward)
    assert math.isnan(timing.both)
    assert benchmark.measure("torch", SMALL, 1).forward > 0


def test_walked_and_stacked_are_both_measured():
    result = benchmark.measure_2d((1, 3, 4, 8), states=2, repeats=1)
    assert set(result) == {"walked", "stacked"}
    assert all(len(numbers) == 3 for numbers in result.values())
