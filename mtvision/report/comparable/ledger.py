"""The ledger of transfer: task by task, whether a row is better or worse than a reference.

The difference is that of the headline scores, averaged over common seeds. Its interval and its p come from a
bootstrap over seeds and test images together. A record holds the headline score without each image
(`leave_one_out`). n·score - (n - 1)·(score without the image) is the image's part of a pooled score, the
jackknife's pseudo-value. Rows are paired: the same seeds and the same images count in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum, isnan, nan
from typing import TYPE_CHECKING

from mtvision.core.naming import look_up
from mtvision.report.baseline import SINGLE_TASK, fold_single_task, is_single_task
from mtvision.report.comparable.gains import total_hours
from mtvision.report.comparable.key import conflicts
from mtvision.report.comparable.leads import LEVEL
from mtvision.report.display import Display, display_of
from mtvision.report.grid import Cell, Column, Grid, Row
from mtvision.report.paired import holm, p_cell
from mtvision.report.record import Record
from mtvision.report.table import group_seeds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWS = 2**14
"""Resamples; the smallest p is 2 / (DRAWS + 1)."""
CHUNK = 2**10
BETTER, WORSE, OPEN = "better", "worse", "no difference shown"
NOT_TESTED = "not tested: no scores without each image"


@dataclass(frozen=True)
class Entry:
    """One row and task against the reference.

    Args:
        method: of the row.
        task: its name.
        score: headline.
        mean: difference over common seeds, positive = better, in the units of records.
        seeds: common ones.
        images: that both records have a score without; 0 = not tested.
        interval: of 95 %, over seeds and images; None if not tested.
        p: two-sided; None if not tested.
        hours: training time of the row over that of the reference, None where it is not known. A search for
            weights counts once for all seeds.
        p_holm: corrected over all rows and tasks of the reference.
    """

    method: str
    task: str
    score: str
    mean: float
    seeds: int
    images: int
    interval: tuple[float, float] | None
    p: float | None
    hours: float | None
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """`better` or `worse` if the corrected p is below 0.05; else no difference is shown.

        With one seed it says so: the test then covers the images alone.
        """
        if self.p_holm is None:
            return NOT_TESTED
        if self.p_holm >= LEVEL:
            return OPEN
        verdict = BETTER if self.mean > 0 else WORSE
        return f"{verdict}, one seed" if self.seeds == 1 else verdict


def ledger(records: Sequence[Record], reference: str) -> list[Entry]:
    """Compare every multi-task row with a reference, task by task.

    Args:
        records: of one protocol.
        reference: `single-task` for the networks of one task each, or the method of a row.

    Raises:
        UnknownNameError: no record is of the reference.
        ValueError: several configurations of the reference have the same task.
    """
    rows = [row for row in group_seeds(fold_single_task(records)) if row[0].provenance != "paper"]
    of_reference = [row for row in rows if _is(row[0], reference)]
    if not of_reference:
        names = dict.fromkeys([*(row[0].method for row in rows if not _is(row[0], SINGLE_TASK)), SINGLE_TASK])
        if reference == SINGLE_TASK:
            raise ValueError("ledger: there is no record of one task; train a config with tasks=['…'] too.")
        look_up("reference of the ledger", reference, names)
    found = []
    for task, base in _by_task(of_reference).items():
        for row in rows:
            if row in of_reference or _is(row[0], SINGLE_TASK) or task not in row[0].task_names:
                continue
            entry = _entry(row, base, task)
            found += [] if entry is None else [entry]
    order = list(dict.fromkeys(row[0].method for row in rows))
    found.sort(key=lambda item: order.index(item.method))
    return [replace(item, p_holm=p) for item, p in zip(found, holm([i.p for i in found]), strict=True)]


def _is(record: Record, reference: str) -> bool:
    """Whether a record is of the reference; rows of one task, joined or not, are `single-task`."""
    if reference == SINGLE_TASK:
        return is_single_task(record) or record.method.startswith(f"{SINGLE_TASK} (")
    return record.method == reference


def _by_task(rows: Sequence[list[Record]]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for row in rows:
        for task in row[0].task_names:
            if task in found:
                names = ", ".join(f"{item[0].method} / {item[0].backbone}" for item in (found[task], row))
                raise ValueError(
                    f"ledger: two references have the task '{task}' ({names}). Give records of one."
                )
            found[task] = row
    return found


def _entry(row: Sequence[Record], base: Sequence[Record], task: str) -> Entry | None:
    """The comparison; None without common seeds that compare."""
    first, others = row[0].task(task), {record.seed: record for record in base}
    score, sign = first["headline"], 1 if first["higher_is_better"] else -1
    pairs = []
    for record in row:
        other = others.get(record.seed)
        if other is None or record.seed is None or conflicts(record, other):
            continue
        if other.task(task)["evaluator"] != first["evaluator"]:
            continue
        if not any(isnan(item.scores.get(task, {}).get(score, nan)) for item in (record, other)):
            pairs.append((record, other))
    if not pairs:
        return None
    differences = [sign * (a.scores[task][score] - b.scores[task][score]) for a, b in pairs]
    mean = fsum(differences) / len(pairs)
    parts = [_paired_parts(a, b, task, score, sign) for a, b in pairs]
    images = sorted(set.intersection(*(set(part) for part in parts)))
    if len(images) < 2:
        return Entry(row[0].method, task, score, mean, len(pairs), 0, None, None, _hours(pairs))
    values = [[part[image] for image in images] for part in parts]
    interval, p = bootstrap(values, mean)
    return Entry(row[0].method, task, score, mean, len(pairs), len(images), interval, p, _hours(pairs))


def _paired_parts(one: Record, other: Record, task: str, score: str, sign: int) -> dict[str, float]:
    """{image: difference of the two records' parts of the score} of the images that both have."""
    a, b = (pseudo_values(item, task, score) for item in (one, other))
    return {image: sign * (a[image] - b[image]) for image in a.keys() & b.keys()}


def pseudo_values(record: Record, task: str, score: str) -> dict[str, float]:
    """{image: its part of the score}; empty for a record without scores without each image.

    The part is n·score - (n - 1)·(score of the other images). Of a mean over images it is the image's value.
    """
    without = (record.leave_one_out or {}).get(task, {})
    whole, count = record.scores[task][score], len(without)
    values = {image: count * whole - (count - 1) * value for image, value in without.items()}
    return {image: value for image, value in values.items() if not isnan(value)}


def bootstrap(values: Sequence[Sequence[float]], mean: float) -> tuple[tuple[float, float], float]:
    """The 95 % interval of a difference, and its two-sided p.

    Seeds are drawn with replacement, and images too; an image that is drawn counts for every seed. With one
    seed the interval is that of the images alone. Draws are the same in every call.

    Args:
        values: differences of the parts, [seed][image]; one seed and two images at least.
        mean: the difference, which the interval is centred on.
    """
    import numpy as np

    array = np.array(values)
    seeds, images = array.shape
    rng = np.random.default_rng(0)
    drawn: list[NDArray[np.float64]] = []
    for _ in range(DRAWS // CHUNK):
        chosen = rng.multinomial(images, np.full(images, 1 / images), size=CHUNK) / images
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=CHUNK) / seeds
        drawn.append(np.einsum("bs,bs->b", chosen @ array.T, weights))
    means = np.concatenate(drawn) - array.mean() + mean
    low, high = (float(bound) for bound in np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2]))
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return (low, high), min(1.0, 2 * (beyond + 1) / (DRAWS + 1))


def _hours(pairs: Sequence[tuple[Record, Record]]) -> float | None:
    one, other = (total_hours(side) for side in zip(*pairs, strict=True))
    return None if one is None or not other else one / other


def ledger_grid(records: Sequence[Record], reference: str) -> Grid:
    """The ledger as a table: a line for each row and task."""
    tasks = {entry["name"]: entry for record in records for entry in record.tasks}
    columns = (
        Column("method", "method", numeric=False),
        Column("score", "score", numeric=False),
        Column("difference", "difference (+ = better)"),
        Column("interval", "95 % interval", numeric=False),
        Column("seeds", "seeds"),
        Column("images", "images"),
        Column("p", "p"),
        Column("p_holm", "p (Holm)"),
        Column("hours", "hours x", digits=2),
        Column("verdict", "verdict", numeric=False),
    )
    found = ledger(records, reference)
    rows = [_row(item, display_of(tasks[item.task], item.score)) for item in found]
    return Grid(
        f"Transfer, against {reference}", columns, tuple(rows), tuple(("", text) for text in _notes(found))
    )


def _row(item: Entry, shown: Display) -> Row:
    def signed(value: float) -> str:
        return f"{value * shown.factor:+z.{shown.digits}f}"

    interval = "" if item.interval is None else " to ".join(map(signed, item.interval))
    cells = (
        Cell(item.method),
        Cell(f"{item.task.replace('_', ' ')} {shown.title}"),
        Cell(signed(item.mean), item.mean),
        Cell(interval),
        Cell(str(item.seeds), float(item.seeds)),
        Cell(str(item.images), float(item.images)),
        p_cell(item.p),
        p_cell(item.p_holm),
        Cell() if item.hours is None else Cell(f"{item.hours:.2f}", item.hours),
        Cell(item.verdict),
    )
    return Row(cells, "difference")


def _notes(found: Sequence[Entry]) -> list[str]:
    if not found:
        return ["No row of several tasks shares a seed and a task with the reference."]
    tested = [item for item in found if item.p is not None]
    starts = (BETTER, WORSE, OPEN)
    counts = {verdict: sum(item.verdict.startswith(verdict) for item in found) for verdict in starts}
    notes = [
        "Paired over common seeds and test images: bootstrap of both, p corrected over all "
        f"{len(tested)} comparisons of this table (Holm), verdict at {LEVEL}.",
        f"{counts[BETTER]} better, {counts[WORSE]} worse, {counts[OPEN]} with no difference shown. The last "
        "does not mean equal: the interval says what is possible.",
    ]
    if any(item.seeds == 1 for item in tested):
        notes.append("With one seed an interval covers the images only, not what another seed would give.")
    elif any(item.seeds < 6 for item in tested):
        notes.append("A bootstrap of few seeds makes intervals too narrow where seeds differ much.")
    return notes
