"""pytest plugin of the coverage run: tells coverage which test runs, also in processes that the test starts.

A fixture of a module or a session has a name of its own there: every test that uses it reaches its lines.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest

_COVERAGE = coverage.Coverage.current()  # started by coverage itself, see COVERAGE_PROCESS_START
_TESTS: dict[str, dict[str, Any]] = {}
_FIXTURES: dict[str, float] = {}
_SHARED_SECONDS: dict[str, float] = defaultdict(float)
_RUNNING = [""]  # the test, then the shared fixtures that are being set up


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Everything until the end of the test belongs to it."""
    _RUNNING[:] = [item.nodeid]
    _tell(item.nodeid)
    definitions = getattr(item, "_fixtureinfo", None)
    names = definitions.name2fixturedefs.values() if definitions else ()
    _TESTS[item.nodeid] = {
        "id": item.nodeid,
        "slow": item.get_closest_marker("slow") is not None,
        "fixtures": [_key(one[-1]) for one in names if one[-1].scope != "function"],
        "seconds": 0.0,
        "failed": False,
        "ran": False,
    }
    try:
        return (yield)
    finally:
        _tell("")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, Any, Any]:
    """Time and lines of a fixture that several tests share count for each of them."""
    if fixturedef.scope == "function":
        return (yield)
    key = _key(fixturedef)
    _RUNNING.append(key)
    _tell(key)
    start = time.perf_counter()
    try:
        return (yield)
    finally:
        seconds = time.perf_counter() - start
        _FIXTURES[key] = max(seconds, _FIXTURES.get(key, 0.0))
        _RUNNING.pop()
        _tell(_RUNNING[-1])
        if len(_RUNNING) == 1:
            _SHARED_SECONDS[_RUNNING[0]] += seconds


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Time of the test alone, and whether it passed. The controlling process of xdist runs no tests."""
    test = _TESTS.get(report.nodeid)
    if test is not None:
        test["seconds"] += report.duration
        test["failed"] |= report.failed
        test["ran"] |= report.when == "call" and not report.skipped


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One file a process."""
    if not _TESTS:
        return
    for name, test in _TESTS.items():
        test["seconds"] = max(test["seconds"] - _SHARED_SECONDS[name], 0.0)
    tests = [test for test in _TESTS.values() if test["ran"] or test["failed"]]
    folder = Path(os.environ["MTVISION_RECORD"])
    text = json.dumps({"tests": tests, "fixtures": _FIXTURES})
    (folder / f"tests-{os.getpid()}.json").write_text(text)


def _key(fixturedef: Any) -> str:
    return f"fixture {fixturedef.baseid}::{fixturedef.argname}"


def _tell(context: str) -> None:
    os.environ["MTVISION_TEST"] = context
    if _COVERAGE is not None:
        _COVERAGE.switch_context(context)
