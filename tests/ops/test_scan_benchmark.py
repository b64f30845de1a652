"""The benchmark measures what it says, and does not start what memory cannot hold."""

from __future__ import annotations

import math

import pytest

from mtvision.ops import benchmark_scan
from mtvision.ops.scan import benchmark

SMALL = (1, 8, 70, 4, 2)


@pytest.mark.slow
def test_table_has_ratios_to_the_reference(capsys):
    timings = benchmark_scan([SMALL], ["reference", "torch"], repeats=1)
    assert [(t.name, t.shape) for t in timings] == [("reference", SMALL), ("torch", SMALL)]
    assert all(t.forward > 0 and t.both > 0 for t in timings)
    text = capsys.readouterr().out
    assert "(B, D, L, N, G) = (1, 8, 70, 4, 2)" in text
    assert text.index("\nreference") < text.index("\ntorch")


def test_numbers_of_a_row():
    """Ratios are to the base; nanoseconds are of processor time; the last column counts exponentials."""
    shape = (1, 1000, 100, 100, 1)
    base = benchmark.Timing("reference", shape, 2.0, 6.0, 2.0, 6.0, 100 * 2**20, 400 * 2**20)
    now = benchmark.Timing("cpp", shape, 0.5, 2.0, 1.0, 4.0, 10 * 2**20, 20 * 2**20, 0.1, 0.05)
    row = benchmark._row(now, base, floor=25.0).split()
    seconds = ["0.5000", "10%", "4.0", "2.0", "2.0000", "5%", "3.0", "1.5"]
    assert row == ["cpp", *seconds, "10", "1/10", "20", "1/20", "100.000", "4.0"]


def test_the_spread_is_of_the_runs(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 7.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    assert benchmark._seconds(lambda: None, 3)[::2] == (2.0, 1.5)  # 1, 2 and 4 seconds


@pytest.mark.slow
def test_the_reference_is_not_started_without_memory(monkeypatch):
    monkeypatch.setattr(benchmark, "_available", lambda: 1000.0)
    timing = benchmark.measure("reference", SMALL, 1)
    assert math.isnan(timing.forward)
    assert math.isnan(timing.both)
    assert benchmark.measure("torch", SMALL, 1).forward > 0


@pytest.mark.slow
def test_walked_and_stacked_are_both_measured():
    lines = []
    result = benchmark.benchmark_scan_2d([(1, 3, 4, 8)], repeats=1, write=lines.append)[1, 3, 4, 8]
    assert lines[1].startswith("(1, 3, 4, 8)")
    assert set(result) == {"walked", "stacked"}
    assert all(len(numbers) == 3 for numbers in result.values())
