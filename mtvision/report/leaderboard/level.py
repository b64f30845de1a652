"""Rows that no paired test tells apart from the best one: the groups without a significant difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtvision.report.comparable.key import group_records
from mtvision.report.display import display_of
from mtvision.report.paired import BEST, OPEN, best_rows, paired_differences
from mtvision.report.record import Record
from mtvision.report.table import group_seeds

Place = tuple[str, str, str]
"""Method, backbone and task."""


_SEEDS = 3  # with two, a paired test tells nearly no rows apart


@dataclass(frozen=True)
class Level:
    """Rows that are level with the best of their group.

    Args:
        p: {place: p of its difference from the best row after Holm's correction}; None for the best itself.
        notes: one sentence per score that has such rows.
    """

    p: Mapping[Place, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def level_rows(records: Sequence[Record]) -> Level:
    """For every headline score, the rows that are not told apart from the best row.

    The test is that of `mtvision.report.paired`: paired t over common seeds, corrected over the rows of a
    score. Rows with fewer than three common seeds are neither level nor told apart.

    Args:
        records: that compare with one another; published ones have no seeds and are left out.
    """
    own = [record for record in records if record.provenance != "paper"]
    rows = group_seeds(own) if own else []
    if len(rows) < 2 or len(group_records(own)) > 1:
        return Level()
    names = Counter((row[0].method, row[0].backbone) for row in rows)
    found = [item for item in paired_differences(own, BEST) if item.count >= _SEEDS]
    p: dict[Place, float | None] = {}
    notes: list[str] = []
    for task, (best, *_) in best_rows(rows).items():
        tested = [item for item in found if item.task == task]
        same = [item for item in tested if item.verdict == OPEN]
        if not same:
            continue
        pairs = {(item.method, item.backbone): item.p_holm for item in same}
        pairs[(best.method, best.backbone)] = None
        # A name that two rows share does not say which of them was tested.
        p |= {(*name, task): value for name, value in pairs.items() if names[name] == 1}
        entry = best.task(task)
        title = f"{task.replace('_', ' ')} {display_of(entry, entry['headline']).title}"
        notes.append(
            f"{title}: no significant difference from {best.method} in {len(same)} of {len(tested)} rows."
        )
    return Level(p, tuple(notes))
