"""Comparison of published and reproduced scores: the difference, and whether seeds explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isnan, sqrt
from statistics import stdev

from mtvision.core.naming import look_up
from mtvision.report.comparable.key import departures
from mtvision.report.display import display_of
from mtvision.report.grid import Cell, Column, Grid, Row
from mtvision.report.published import PublishedRow, backbone_name
from mtvision.report.record import Record
from mtvision.report.render import FORMATS
from mtvision.report.table import group_seeds

WITHIN = "within seed noise"
OUTSIDE = "outside seed noise"
ONE_SEED = "one seed, noise unknown"
OTHER_TOOL = "other evaluator"


@dataclass(frozen=True)
class Difference:
    """One score, published and reproduced.

    Args:
        method: as published.
        backbone: as published.
        task: its name.
        score: its name.
        published: value, in the units of records.
        mean: reproduced, over seeds.
        std: sample standard deviation over seeds, None for one seed.
        count: seeds.
        gain: mean - published, its sign turned so that positive is better than published.
        verdict: `WITHIN`, `OUTSIDE`, `ONE_SEED` or `OTHER_TOOL`, the last also for a record that was not
            scored as the shipped protocol says.
        certainty: of the published value.
    """

    method: str
    backbone: str
    task: str
    score: str
    published: float
    mean: float
    std: float | None
    count: int
    gain: float
    verdict: str
    certainty: str


def compare(
    records: Sequence[Record], published: Sequence[PublishedRow], names: Mapping[str, str] | None = None
) -> list[Difference]:
    """Compare reproduced records with the published rows of the same protocol, method and backbone.

    The published value counts as one more run. It is within seed noise if it lies inside the 95 % prediction
    interval of the reproduced runs, mean ± t(0.975, n - 1) · std · sqrt(1 + 1/n). How much the authors' runs
    vary is rarely published and not part of it.

    Args:
        records: reproduced; those of other methods are passed over.
        published: from `mtvision.report.published.published_rows`.
        names: {method of a record: published method}, where they differ by more than upper and lower case.
    """
    names = {key.lower(): value for key, value in (names or {}).items()}
    found = []
    for row in group_seeds([record for record in records if record.provenance != "paper"]):
        first = row[0]
        method = names.get(first.method.lower(), first.method)
        for other in published:
            same = (other.method.lower(), other.backbone) == (method.lower(), backbone_name(first.backbone))
            if same and other.protocol == first.protocol:
                found += _differences(row, other)
    return found


def _differences(row: Sequence[Record], other: PublishedRow) -> list[Difference]:
    found = []
    for task, scores in other.scores.items():
        for score, published in scores.items():
            values = [record.scores[task][score] for record in row if score in record.scores.get(task, {})]
            if not values or any(isnan(value) for value in values):
                continue
            entry = row[0].task(task)
            mean = fsum(values) / len(values)
            std = stdev(values) if len(values) > 1 else None
            sign = -1 if display_of(entry, score).higher_is_better is False else 1
            tool = other.evaluator(task) == entry["evaluator"] and not any(map(departures, row))
            found.append(
                Difference(
                    other.method,
                    other.backbone,
                    task,
                    score,
                    published,
                    mean,
                    std,
                    len(values),
                    sign * (mean - published),
                    _verdict(published, mean, std, len(values)) if tool else OTHER_TOOL,
                    other.doubts.get(task, other.certainty),
                )
            )
    return found


def _verdict(published: float, mean: float, std: float | None, count: int) -> str:
    if std is None:
        return ONE_SEED
    from scipy.special import stdtrit

    width = float(stdtrit(count - 1, 0.975)) * std * sqrt(1 + 1 / count)
    return WITHIN if abs(mean - published) <= width else OUTSIDE


def comparison_grid(
    records: Sequence[Record], published: Sequence[PublishedRow], names: Mapping[str, str] | None = None
) -> Grid:
    """One line per compared score: published, reproduced ± std, seeds, difference, verdict."""
    tasks = {entry["name"]: entry for record in records for entry in record.tasks}
    columns = (
        Column("method", "method", numeric=False),
        Column("backbone", "backbone", numeric=False),
        Column("score", "score", numeric=False),
        Column("published", "published"),
        Column("reproduced", "reproduced"),
        Column("seeds", "seeds"),
        Column("difference", "difference (+ = better)"),
        Column("verdict", "verdict", numeric=False),
        Column("certainty", "published value", numeric=False),
    )
    rows = []
    for item in compare(records, published, names):
        shown = display_of(tasks[item.task], item.score)
        spread = "" if item.std is None else shown.text(item.std)
        gain = item.gain * shown.factor
        rows.append(
            Row(
                (
                    Cell(item.method),
                    Cell(item.backbone),
                    Cell(f"{item.task.replace('_', ' ')} {shown.title}"),
                    Cell(shown.text(item.published), item.published),
                    Cell(shown.text(item.mean), item.mean, spread, item.std),
                    Cell(str(item.count), float(item.count)),
                    Cell(f"{gain:+z.{shown.digits}f}", item.gain),
                    Cell(item.verdict),
                    Cell(item.certainty),
                ),
                "difference",
            )
        )
    title = records[0].protocol_title or records[0].protocol if records else ""
    note = "within: the published value lies in the 95 % prediction interval of the reproduced seeds."
    return Grid(f"{title}: published and reproduced", columns, tuple(rows), (("", note),))


def render_comparison(
    records: Sequence[Record],
    published: Sequence[PublishedRow],
    format: str = "terminal",  # noqa: A002  the word users type
    *,
    names: Mapping[str, str] | None = None,
) -> str:
    """The comparison as text, in the formats of `render_table`.

    Raises:
        UnknownNameError: an unknown format.
        ValueError: nothing was published for any of the records, or there are none.
    """
    renderer = look_up("table format", format, FORMATS)
    grid = comparison_grid(records, published, names)
    if not grid.rows:
        methods = (
            ", ".join(sorted({f"{record.method} / {record.backbone}" for record in records})) or "no records"
        )
        raise ValueError(
            f"nothing published matches {methods}. Methods and backbones must have the published names; map "
            "them with `names`."
        )
    return renderer(grid)
