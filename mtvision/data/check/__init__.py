"""Checks of a data set before training, for errors that change scores; see `tools/check_dataset.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.data.check.layouts import known_copies
    from mtvision.data.check.report import render, to_json
    from mtvision.data.check.rules import Finding, judge, judge_note, judge_overlap
    from mtvision.data.check.statistics import SplitStatistics, TaskStatistics, collect
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "Finding",
    "SplitStatistics",
    "TaskStatistics",
    "collect",
    "judge",
    "judge_note",
    "judge_overlap",
    "known_copies",
    "render",
    "to_json",
]
