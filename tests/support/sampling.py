"""A sample of many like cases for `make fast-test`; the rest is marked slow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def sampled(cases: Sequence[Any], count: int = 10) -> list[Any]:
    """All cases, a tuple being several arguments; those not among `count`, spread evenly, are slow."""
    quick = {position * len(cases) // count for position in range(count)}
    return [
        case if position in quick else pytest.param(*_arguments(case), marks=pytest.mark.slow)
        for position, case in enumerate(cases)
    ]


def _arguments(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
