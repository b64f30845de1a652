"""Paired tests: whether one row of a table is better than another, from seeds that both have."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum, isnan, sqrt
from statistics import stdev

from mtvision.core.naming import look_up
from mtvision.report.display import display_of
from mtvision.report.grid import Cell, Column, Grid, Row
from mtvision.report.record import Record
from mtvision.report.table import group_seeds

LEVEL, POWER = 0.05, 0.8
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
        records: of one protocol.
        reference: method of the reference row.

    Raises:
        UnknownNameError: no record has that method.
        ValueError: several rows have it.
    """
    rows = [row for row in group_seeds(records) if row[0].provenance != "paper"]
    named: dict[str, list[list[Record]]] = {}
    for row in rows:
        named.setdefault(row[0].method, []).append(row)
    candidates = look_up("method to compare with", reference, named)
    if len(candidates) > 1:
        kinds = ", ".join(sorted({row[0].backbone for row in candidates}))
        raise ValueError(
            f"{len(candidates)} rows have the method '{reference}' ({kinds}); give the records of one."
        )
    base: dict[int | None, Record] = {record.seed: record for record in candidates[0]}
    found: list[PairedDifference] = []
    for entry in candidates[0][0].tasks:
        of_score = [
            item
            for row in rows
            if row is not candidates[0] and (item := _difference(row, base, entry["name"])) is not None
        ]
        found += _corrected(of_score)
    return found


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
    mean = fsum(values) / len(values)
    first = row[0]
    head = (first.method, first.backbone, task, score, len(values), mean)
    if len(values) == 1:
        return PairedDifference(*head, None, None, None, None, None)
    std = stdev(values)
    p = paired_t(values)
    return PairedDifference(*head, std, p, sign_flip(values), p, _detectable(std, len(values)))


def paired_t(values: Sequence[float]) -> float:
    """Two-sided p of Student's t test that the mean of the differences is 0; needs two or more."""
    from scipy.stats import ttest_1samp

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # differences of equal size are a result, not a mistake
        p = float(ttest_1samp(values, 0.0).pvalue)
    return 1.0 if isnan(p) else p  # NaN: every difference is 0


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


def _corrected(items: Sequence[PairedDifference]) -> list[PairedDifference]:
    """Holm's correction over the rows of one score."""
    order = sorted((item.p, index) for index, item in enumerate(items) if item.p is not None)
    corrected: dict[int, float] = {}
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[index] = largest
    return [replace(item, p_holm=corrected.get(index)) for index, item in enumerate(items)]


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
        Column("detectable", "detectable (80 % power)"),
        Column("verdict", "verdict", numeric=False),
    )
    found = paired_differences(records, reference)
    rows = []
    for item in found:
        shown = display_of(tasks[item.task], item.score)
        text = f"{item.mean * shown.factor:+z.{shown.digits}f}"
        numbers = [_p_cell(p) for p in (item.p, item.p_holm, item.p_sign)]
        rows.append(
            Row(
                (
                    Cell(item.method),
                    Cell(f"{item.task.replace('_', ' ')} {shown.title}"),
                    Cell(text, item.mean, "" if item.std is None else shown.text(item.std), item.std),
                    Cell(str(item.count), float(item.count)),
                    *numbers,
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
    return Grid(f"Differences from {reference}", columns, tuple(rows), tuple(("", text) for text in notes))


def _p_cell(p: float | None) -> Cell:
    if p is None:
        return Cell()
    return Cell("<0.001" if p < 0.001 else f"{p:.3f}", p)
