"""`mtvision benchmark compare`: what counts as a change, and files that say nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from mtvision.cli.machine import benchmark
from mtvision.cli.machine.timings import CONFIDENCE, change, machine, ratios
from mtvision.cli.main import call

NOISE = [1.0, 1.02, 0.99, 1.01, 0.98]


def write(path, suites, **facts):
    path.write_text(json.dumps({"machine": {**machine(), **facts}, "suites": suites}))
    return str(path)


def turns(factor):
    return [factor * value for value in NOISE]


def test_ratios_are_taken_within_a_turn():
    calls = []
    found = ratios({"one": lambda: calls.append(1), "two": lambda: calls.append(2)}, 3)
    assert calls == [1, 2] * 4
    assert found["one"] == [1.0] * 3
    assert len(found["two"]) == 3


def test_the_interval_is_welchs():
    """Of the difference of means of logarithms, against SciPy's own."""
    before, after = [0.2, 0.23, 0.21, 0.2], [0.3, 0.28, 0.35]
    expected = stats.ttest_ind(np.log(after), np.log(before), equal_var=False)
    low, high = np.exp(expected.confidence_interval(CONFIDENCE))
    found = change("a", "b", before, after)
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-10)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "same"), (1.02, "same"), (1.5, "slower"), (0.5, "faster")]
)
def test_verdicts(factor, verdict):
    assert change("a", "b", turns(0.3), turns(0.3 * factor)).verdict == verdict


def test_one_turn_says_nothing():
    found = change("a", "b", [0.3], [0.6])
    assert found.verdict == "unknown"
    assert math.isnan(found.low)


def test_equal_turns_without_noise_have_an_interval_of_a_point():
    assert change("a", "b", [0.5, 0.5], [0.5, 0.5]).verdict == "same"
    assert change("a", "b", [0.5, 0.5], [1.0, 1.0]).verdict == "slower"


def test_the_command_names_what_got_slower(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    before = write(tmp_path / "a.json", {"data": {"loop": turns(1), "suite": turns(0.4), "gone": turns(1)}})
    after = write(tmp_path / "b.json", {"data": {"loop": turns(1), "suite": turns(0.8)}}, threads=99)
    assert call("benchmark", ["compare", before, after]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("not the same machine: threads:") for line in lines)
    (row,) = [line.split() for line in lines if "suite" in line and "slower" in line]
    assert {"0.400", "0.800", "2.00"} <= set(row)
    assert not [line for line in lines if "gone" in line or "loop" in line]
    assert call("benchmark", ["compare", after, before]) == 0


@pytest.mark.parametrize(
    "content", ["", "[]", '{"suites": {}}', '{"machine": {}, "suites": {"a": {"b": [0]}}}']
)
def test_other_files_are_refused(tmp_path, content, capsys):
    path = tmp_path / "a.json"
    path.write_text(content)
    assert call("benchmark", ["compare", str(path), str(path)]) == 2
    assert f"{path}: not written by `mtvision benchmark --json`" in capsys.readouterr().err


def test_files_of_other_suites_are_refused(tmp_path, capsys):
    one = write(tmp_path / "a.json", {"data": {"loop": [1.0], "suite": [0.4]}})
    two = write(tmp_path / "b.json", {"scan": {"reference": [1.0], "cpp": [0.1]}})
    assert call("benchmark", ["compare", one, two]) == 2
    assert "no variant in common: data and scan" in capsys.readouterr().err


def test_the_page_has_machines_ratios_and_lines_of_its_files(tmp_path, capsys):
    one = write(
        tmp_path / "a.json", {"data": {"loop": [1.0] * 3, "suite": [0.5, 0.25, 0.4]}}, processor="Zen 9"
    )
    found = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(found | {"lines": {"scan": ["cpp 0.1 s"]}}))
    assert call("benchmark", ["page", one]) == 0
    text = capsys.readouterr().out
    assert "## Zen 9, " in text
    assert "| suite | 0.4 | 0.25 to 0.5 | 2.50 |" in text
    assert "```text\ncpp 0.1 s\n```" in text
    assert "3 turns." in text
    data, scan = text.split("### data")[1].split("### scan")
    assert "\n\nLimit: decoding PNG" in data
    assert "\n\nLimit: loads" in scan


@pytest.mark.parametrize("name", [*benchmark.SUITES, *benchmark.REPORTS])
def test_every_suite_says_what_limits_it(name):
    suite = {**benchmark.SUITES, **benchmark.REPORTS}[name]
    title, limit = benchmark.said_by(suite)
    assert title.endswith(".")
    assert limit.startswith("Limit: ")
    assert limit.endswith(".")
    assert "\n" not in title + limit
