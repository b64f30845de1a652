"""Paired tests: whether one row of a table is better than another, from seeds that both have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum, isnan, nan, sqrt
from statistics import stdev

from mtvision.core.naming import look_up
from mtvision.report.comparable.key import conflicts, group_records, parting
from mtvision.report.comparable.leads import LEVEL, paired_interval, paired_t
from mtvision.report.display import Display, display_of
from mtvision.report.grid import Cell, Column, Grid, Row
from mtvision.report.record import Record
from mtvision.report.table import group_seeds

POWER = 0.8
BEST = "best"
"""Reference that stands for the best row of every score."""
DRAWS = 2**12
"""Sign flips that are tried at most."""

BETTER, WORSE, OPEN, ONE_SEED = "better", "worse", "not told apart", "one common seed, no test"


@dataclass(frozen=True)
class PairedDifference:
    """A row minus the reference row, over the seeds that both have.

    Args:
        method: of the row.
        backbone: of the row.
        task: its name.
        score: its headline score.
        count: common seeds.
        mean: mean difference, its sign turned so that positive is better; in the units of records.
        std: sample standard deviation of the differences, None for one seed.
        p: of a two-sided paired t test, None for one seed.
        interval: of 95 %, paired t, None for one seed.
        p_sign: of the exact two-sided sign-flip test, None for one seed; at best 2 / 2^count.
        p_holm: `p` after Holm's correction over all rows of the same score.
        detectable: smallest true difference that this test would find in 80 % of such experiments, were `std`
            the true one; None for one seed.
    """

    method: str
    backbone: str
    task: str
    score: str
    count: int
    mean: float
    std: float | None
    p: float | None
    interval: tuple[float, float] | None
    p_sign: float | None
    p_holm: float | None
    detectable: float | None

    @property
    def verdict(self) -> str:
        """`better` or `worse` if the corrected p is below 0.05, else `not told apart`."""
        if self.p_holm is None:
            return ONE_SEED
        if self.p_holm >= LEVEL:
            return OPEN
        return BETTER if self.mean > 0 else WORSE


def paired_differences(records: Sequence[Record], reference: str) -> list[PairedDifference]:
    """Compare every row with the reference row, score by score, seed by seed.

    Rows that share a seed share the order of images, augmentation included, so that their difference varies
    less than the rows do. Runs with a score that is not defined are left out.

    Args:
        records: of one protocol. Rows that do not compare with the reference
            (`mtvision.report.comparable.key`) are left out.
        reference: method of the reference row; `BEST` for the best row of every score.

    Raises:
        UnknownNameError: no record has that method.
        ValueError: several rows have it, or the best row is asked for and records do not compare.
    """
    rows = [row for row in group_seeds(records) if row[0].provenance != "paper"]
    if reference == BEST and BEST not in {row[0].method for row in rows}:
        groups = group_records([record for row in rows for record in row])
        if len(groups) > 1:
            raise ValueError(f"no row is the best of all: {parting(groups)} Give the records of one group.")
        bases = best_rows(rows)
    else:
        base = _reference_row(rows, reference)
        rows = [row for row in rows if not conflicts(row[0], base[0])]
        bases = {entry["name"]: base for entry in base[0].tasks}
    found: list[PairedDifference] = []
    for task, base in bases.items():
        seeds: dict[int | None, Record] = {record.seed: record for record in base}
        differences = (_difference(row, seeds, task) for row in rows if row is not base)
        found += corrected([item for item in differences if item is not None])
    return found


def _reference_row(rows: Sequence[list[Record]], method: str) -> list[Record]:
    named: dict[str, list[list[Record]]] = {}
    for row in rows:
        named.setdefault(row[0].method, []).append(row)
    candidates = look_up("method to compare with", method, named)
    if len(candidates) > 1:
        kinds = ", ".join(sorted({row[0].backbone for row in candidates}))
        groups = parting(group_records([row[0] for row in candidates]))
        raise ValueError(
            f"{len(candidates)} rows have the method '{method}' ({kinds}); give the records of one."
            + (f" They are {groups}" if groups else "")
        )
    return candidates[0]


def best_rows(rows: Sequence[list[Record]]) -> dict[str, list[Record]]:
    """{task: row with the best mean of its headline score}."""
    entries = {entry["name"]: entry for row in rows for entry in row[0].tasks}
    found = {}
    for task, entry in entries.items():
        means = {}
        for index, row in enumerate(rows):
            values = [record.scores.get(task, {}).get(entry["headline"], nan) for record in row]
            if not any(map(isnan, values)):
                means[index] = fsum(values) / len(values)
        if means:
            choose = max if entry["higher_is_better"] else min
            found[task] = rows[choose(means, key=lambda index: means[index])]
    return found


def paired_grids(records: Sequence[Record], reference: str) -> list[Grid]:
    """One grid per group of comparable records that has the reference; the rest as `paired_grid`."""
    groups = group_records(records)
    having = [group for group in groups if reference in {record.method for record in group.records}]
    if not having and reference == BEST:
        having = [group for group in groups if len(group_seeds(group.records)) > 1] or groups
    if not having:
        return [paired_grid(records, reference)]  # which says that there is no such method
    grids = [paired_grid(group.records, reference) for group in having]
    titles = [
        f"{grid.title}, {group.label}" if group.label else grid.title
        for grid, group in zip(grids, having, strict=True)
    ]
    return [replace(grid, title=title) for grid, title in zip(grids, titles, strict=True)]


def _difference(row: Sequence[Record], base: dict[int | None, Record], task: str) -> PairedDifference | None:
    if task not in row[0].task_names:
        return None
    entry = row[0].task(task)
    score, sign = entry["headline"], 1 if entry["higher_is_better"] else -1
    values = []
    for record in row:
        other = base.get(record.seed) if record.seed is not None else None
        if other is None or other.task(task)["evaluator"] != entry["evaluator"]:
            continue
        pair = [item.scores.get(task, {}).get(score, float("nan")) for item in (record, other)]
        value = sign * (pair[0] - pair[1])
        values += [] if isnan(value) else [value]
    if not values:
        return None
    return tested(row[0], task, score, values)


def tested(row: Record, task: str, score: str, values: Sequence[float]) -> PairedDifference:
    """The tests of the differences of a row, one per common seed, without the correction over rows.

    Args:
        row: a record of it.
        task: what is compared, and its `score`.
        score: name.
        values: differences, positive = better; at least one.
    """
    mean = fsum(values) / len(values)
    head = (row.method, row.backbone, task, score, len(values), mean)
    if len(values) == 1:
        return PairedDifference(*head, None, None, None, None, None, None)
    std = stdev(values)
    p = paired_t(values)
    return PairedDifference(
        *head, std, p, paired_interval(values), sign_flip(values), p, _detectable(std, len(values))
    )


def sign_flip(values: Sequence[float]) -> float:
    """Two-sided p of the exact sign-flip test: all 2^n signs up to n = 12, else 4096 pseudo-random ones."""
    from scipy.stats import permutation_test

    def size(flipped: Iterable[float]) -> float:
        return abs(fsum(flipped))  # without rounding, so that equal sums are equal

    options = {"permutation_type": "samples", "alternative": "greater", "vectorized": False}
    return float(permutation_test((values,), size, n_resamples=DRAWS, rng=0, **options).pvalue)


def _detectable(std: float, count: int) -> float:
    """The difference with 80 % power at `LEVEL`, from the noncentral t distribution."""
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    limit = t.isf(LEVEL / 2, count - 1)
    size = brentq(
        lambda effect: nct.sf(limit, count - 1, effect) - POWER, 0.0, 1e3
    )  # one tail decides at 80 %
    return float(size) * std / sqrt(count)


def corrected(items: Sequence[PairedDifference]) -> list[PairedDifference]:
    """Holm's correction over the rows of one score."""
    ps = holm([item.p for item in items])
    return [replace(item, p_holm=p) for item, p in zip(items, ps, strict=True)]


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values after Holm's correction for their number, in their order; None is no test and stays.

    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    order = sorted((p, index) for index, p in enumerate(values) if p is not None)
    found: dict[int, float] = {}
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        found[index] = largest
    return [found.get(index) for index in range(len(values))]


def paired_grid(records: Sequence[Record], reference: str) -> Grid:
    """One line per row and score: mean difference ± std over seeds, p, corrected p, detectable size."""
    tasks = {entry["name"]: entry for record in records for entry in record.tasks}
    columns = (
        Column("method", "method", numeric=False),
        Column("score", "score", numeric=False),
        Column("difference", "difference (+ = better)"),
        Column("seeds", "seeds"),
        Column("p", "p (paired t)"),
        Column("p_holm", "p (Holm)"),
        Column("p_sign", "p (sign flip)"),
        Column("interval", "95 % interval", numeric=False),
        Column("detectable", "detectable (80 % power)"),
        Column("verdict", "verdict", numeric=False),
    )
    found = paired_differences(records, reference)
    rows = []
    for item in found:
        shown = display_of(tasks[item.task], item.score)
        text = f"{item.mean * shown.factor:+z.{shown.digits}f}"
        numbers = [p_cell(p) for p in (item.p, item.p_holm, item.p_sign)]
        rows.append(
            Row(
                (
                    Cell(item.method),
                    Cell(f"{item.task.replace('_', ' ')} {shown.title}"),
                    Cell(text, item.mean, "" if item.std is None else shown.text(item.std), item.std),
                    Cell(str(item.count), float(item.count)),
                    *numbers,
                    Cell(_interval(item.interval, shown)),
                    Cell(shown.text(item.detectable), item.detectable),
                    Cell(item.verdict),
                ),
                "difference",
            )
        )
    counts = sorted({item.count for item in found})
    notes = [
        "Paired over common seeds; p of a two-sided paired t test, Holm-corrected over the rows of a score; "
        "verdict at 0.05."
    ]
    if counts and counts[0] < 6:
        notes.append(
            f"With {counts[0]} seed{'s' * (counts[0] != 1)} the sign-flip test cannot go below "
            f"{2 / 2 ** counts[0]:.3g}. The t test assumes normal differences and finds only large ones "
            "(column detectable): 'not told apart' does not mean equal."
        )
    name = "the best row of each score" if reference == BEST else reference
    return Grid(f"Differences from {name}", columns, tuple(rows), tuple(("", text) for text in notes))


def _interval(interval: tuple[float, float] | None, shown: Display) -> str:
    if interval is None:
        return ""
    low, high = (f"{bound * shown.factor:+z.{shown.digits}f}" for bound in interval)
    return f"{low} to {high}"


def p_cell(p: float | None) -> Cell:
    """A p-value in a table; empty without one."""
    if p is None:
        return Cell()
    return Cell("<0.001" if p < 0.001 else f"{p:.3f}", p)
