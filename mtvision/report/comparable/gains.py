"""Gains of every row over plain sums of losses: with equal weights, and with tuned ones.

The gain of a run is the mean relative change of the headline scores over the sum's run with the same seed. A
rule that does not beat the tuned sum for the same total cost is not worth its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

from mtvision.core.naming import look_up
from mtvision.report.baseline import Baseline, gain_over
from mtvision.report.comparable.key import conflicts
from mtvision.report.grid import Cell, Column, Grid, Notes, Row
from mtvision.report.paired import PairedDifference, corrected, p_cell, tested
from mtvision.report.record import Record
from mtvision.report.table import group_seeds

TOLERANCE = 1.1
"""Total costs that differ by less count as equal; hours of one machine vary by as much."""


def gains_over(records: Sequence[Record], reference: str) -> dict[str, PairedDifference]:
    """{method: gain in per cent over the reference row}, paired over common seeds, p corrected over rows.

    Rows that do not compare with the reference, or have other tasks, are left out.

    Args:
        records: of one protocol.
        reference: method of the plain sum.

    Raises:
        UnknownNameError: no record has that method.
    """
    rows = [row for row in group_seeds(records) if row[0].provenance != "paper"]
    base = look_up("method to compare with", reference, {row[0].method: row for row in rows})
    seeds = {record.seed: record for record in base}
    found = []
    for row in rows:
        same = row[0].task_names == base[0].task_names and not conflicts(row[0], base[0])
        if row is base or not same:
            continue
        values = [
            gain
            for record in row
            if record.seed in seeds and (gain := _gain(record, seeds[record.seed])) is not None
        ]
        if values:
            found.append(tested(row[0], "all", "gain", values))
    return {item.method: item for item in corrected(found)}


def _gain(record: Record, base: Record) -> float | None:
    try:
        return float(gain_over(record, Baseline(base.method, base.scores))["percent"])
    except ValueError:  # a score that is not finite
        return None


def search_cost(record: Record) -> dict[str, Any] | None:
    """What the search for a run's weights has cost (`mtvision launch --search-weights`); None without one."""
    return (record.training or {}).get("weight_search")


def total_hours(row: Sequence[Record]) -> float | None:
    """Hours of all runs of a row and of the search for its weights; None where they are not recorded."""
    hours = [(record.training or {}).get("hours") for record in row]
    searches = [(search_cost(record) or {}).get("hours", 0.0) for record in row]
    if any(item is None for item in hours):
        return None
    return fsum([item for item in hours if item is not None] + [max(searches)])


def gains_grid(records: Sequence[Record], equal: str, tuned: str) -> Grid:
    """One line per row: gain over equal and over tuned weights, with p and interval, and its total cost.

    Args:
        records: of one protocol, with the rows `equal` and `tuned`.
        equal: method of the sum with equal weights.
        tuned: method of the sum with tuned weights. Its cost includes the search. It is that of `equal` where
            no other weights were better.

    Raises:
        UnknownNameError: no record has that method.
    """
    over = [(name, gains_over(records, name)) for name in (equal, tuned)]
    rows = {row[0].method: row for row in group_seeds(records)}
    hours = {name: _hours_per_seed(row) for name, row in rows.items()}
    notes = Notes()
    body = []
    for name in [equal, *over[0][1]]:
        cells = [Cell(name)]
        for column, (_, found) in enumerate(over):
            mark = ""
            if column and name not in (equal, tuned) and _costs_less(hours[name], hours[tuned]):
                mark = notes.mark(
                    f"not at equal cost: '{tuned}' and its search cost more per seed than this row"
                )
            cells += _cells(found.get(name), mark)
        cells.append(_cost(hours[name], hours[equal]))
        body.append(Row(tuple(cells), "difference"))
    notes.add(
        "Gain: mean relative change of the headline scores over the run with the same seed, in per cent, "
        "+ = better. Paired t test, Holm-corrected over the rows; 95 % interval."
    )
    notes.add(
        "Cost: hours per seed, for tuned weights with a share of the search, over those of equal weights."
    )
    return Grid("Gains over plain sums", _columns(equal, tuned), tuple(body), notes.listed())


def _columns(equal: str, tuned: str) -> tuple[Column, ...]:
    columns = [Column("method", "method", numeric=False)]
    for key, name in (("equal", equal), ("tuned", tuned)):
        columns += [
            Column(f"{key}/gain", "gain %", name),
            Column(f"{key}/interval", "95 % interval", name, numeric=False),
            Column(f"{key}/p", "p", name),
            Column(f"{key}/p_holm", "p (Holm)", name),
        ]
    return (*columns, Column("cost", "total cost"))


def _cells(found: PairedDifference | None, mark: str) -> list[Cell]:
    if found is None:
        return [Cell()] * 4
    low, high = found.interval or (None, None)
    interval = "" if low is None or high is None else f"{low:+z.2f} to {high:+z.2f}"
    spread = "" if found.std is None else f"{found.std:.2f}"
    gain = Cell(f"{found.mean:+z.2f}", found.mean, spread, found.std, mark=mark)
    return [gain, Cell(interval), *(p_cell(p) for p in (found.p, found.p_holm))]


def _hours_per_seed(row: Sequence[Record]) -> float | None:
    """The search is shared by the seeds, so each has a part of it."""
    hours = total_hours(row)
    return None if hours is None else hours / len(row)


def _cost(hours: float | None, base: float | None) -> Cell:
    """Hours per seed over those of equal weights."""
    return Cell() if hours is None or not base else Cell(f"{hours / base:.2f}", hours / base)


def _costs_less(hours: float | None, tuned: float | None) -> bool:
    return hours is not None and tuned is not None and hours * TOLERANCE < tuned
