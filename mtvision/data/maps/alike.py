"""Whether one file fits what was decided about its set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.task import IGNORE, Task
from mtvision.data.decode import DecodeError
from mtvision.data.maps.evidence import KEPT
from mtvision.data.maps.options import MapOptions, kind_of
from mtvision.data.maps.rules import FAR, LONGEST_REAL, Rule, is_shifted

OTHER_UNIT = 100
"""So many times the median distance of the set, or less than the same part of it, is another unit."""
FAR_OFF = 500
"""The same where scale= was said, which nothing could overrule: only thousandths are refused."""
NEAR = 0.01
"""Metres that no median distance of a picture undercuts."""
SOME = 0.001
"""Share of the pixels that must be ones before a file is taken for a mask of 0 and 1."""


class ContradictionError(DecodeError):
    """A file whose numbers mean something else than those of the files that were looked at."""


Check = Callable[[NDArray[Any], NDArray[np.bool_] | None], str]


def check_of(task: Task, rule: Rule, options: MapOptions) -> Check | None:
    """What single files of a set are checked for; None where nothing was decided from the content."""
    kind = kind_of(task)
    if options.scale is not None:
        scaled = kind == "length" and task.unit == "m" and rule.median > 0 and options.scale != 1
        return partial(_thousandths, rule.median, rule.divisor) if scaled else None
    if kind == "binary" and rule.meaning == "ids" and rule.levels and IGNORE not in rule.levels:
        return _other_mark
    top = rule.divisor if rule.meaning == "share" else rule.cut if rule.meaning == "mask" else None
    if top is not None and top > 1 and options.encoding in (None, "mask"):
        return _low_top
    if kind == "length" and task.unit == "m" and rule.median > 0:
        return partial(_other_unit, rule.median)
    return _other_vectors if rule.meaning == "signed" and options.encoding is None else None


def require_alike(
    task: Task,
    rule: Rule,
    options: MapOptions,
    values: NDArray[Any],
    missing: NDArray[np.bool_] | None,
    path: Path,
) -> None:
    """Refuse a file that contradicts what was decided from the content of its set.

    Args:
        task: what the file is a map of.
        rule: the decision.
        options: what was said by hand.
        values: numbers of the file (H, W, C).
        missing: pixels (H, W) without label; None = nowhere.
        path: for the message.

    Raises:
        ContradictionError: says what the file holds and what the others hold.
    """
    check = check_of(task, rule, options)
    odd = "" if check is None or not values.size else check(values, missing)
    if odd:
        raise ContradictionError(
            f"{path}: {odd}, but the files that were looked at are {rule.found}. Store all files alike."
        )


def _some(values: NDArray[Any], missing: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Pixels spread over a map, (n, C), without those that have no label or no number."""
    rows = values.reshape(-1, values.shape[2])
    places = np.linspace(0, len(rows) - 1, min(4 * KEPT, len(rows))).astype(np.int64)
    some = rows[places].astype(np.float64)
    kept = np.isfinite(some).all(axis=1)
    if missing is not None:
        kept &= ~missing.ravel()[places]
    return np.asarray(some[kept])


def _other_mark(values: NDArray[Any], missing: NDArray[np.bool_] | None) -> str:
    """Of ids 0 and 1 without a mark: a file of 0 and 255 may be a mask."""
    here = values == IGNORE if missing is None else (values == IGNORE) & ~missing[..., None]
    if not here.any() or (values == 1).any():
        return ""
    return f"holds {IGNORE} and no 1 (say encoding='ids' if {IGNORE} means \"no label\")"


def _low_top(values: NDArray[Any], missing: NDArray[np.bool_] | None) -> str:
    """Of masks or shares of 255: a file of 0 and 1."""
    some = _some(values, missing)
    if not some.size or some.max() > 1 or (some > 0.5).mean() <= SOME:
        return ""
    return "ends at 1"


def _median(values: NDArray[Any], missing: NDArray[np.bool_] | None) -> float | None:
    """Of the distances above 0; None where there is none."""
    some = _some(values, missing)
    readings = some[some > 0]
    return float(np.median(readings)) if readings.size else None


def _other_unit(usual: float, values: NDArray[Any], missing: NDArray[np.bool_] | None) -> str:
    median = _median(values, missing)
    if median is None:
        return ""
    if median * OTHER_UNIT >= usual and not (median > FAR and median > OTHER_UNIT * usual):
        return ""
    return f"its median is {median:g}, that of the set {usual:g} (say scale=1 if all are metres)"


def _thousandths(
    usual: float, divisor: float, values: NDArray[Any], missing: NDArray[np.bool_] | None
) -> str:
    """Of distances with scale=: a file in thousandths or thousands of the unit."""
    median = _median(values, missing)
    if median is None:
        return ""
    low = median / divisor < NEAR and median * FAR_OFF < usual
    high = median / divisor > FAR and median > FAR_OFF * usual
    if not low and not high:
        return ""
    return f"its median is {median / divisor:g} m by scale={divisor:g}, that of the set {usual / divisor:g} m"


def _other_vectors(values: NDArray[Any], missing: NDArray[np.bool_] | None) -> str:
    some = _some(values, missing)
    if not some.size:
        return ""
    if np.abs(some).max() > LONGEST_REAL:
        return f"reaches {np.abs(some).max():g}, expected unit vectors"
    if some.min() >= 0 and is_shifted(some[some.any(axis=1)], 1.0):
        return "holds vectors that have length 1 only as 2 v - 1"
    return ""
