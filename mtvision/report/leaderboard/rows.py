"""Content of the page as data: one section per protocol, with columns, rows and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mtvision.report.baseline import (
    SINGLE_TASK,
    fold_single_task,
    is_single_task,
    require_baseline,
    with_gain,
)
from mtvision.report.grid import Cell, Column, Grid, Row
from mtvision.report.leaderboard.level import Level, level_rows
from mtvision.report.published import (
    CERTAINTIES,
    backbone_name,
    code_licence,
    published_records,
    published_rows,
)
from mtvision.report.record import Record
from mtvision.report.table import (
    build_grid,
    group_seeds,
    is_published,
    licence_of,
    rows_by_group,
    usual_extras,
)

if TYPE_CHECKING:
    from mtvision.protocols import Protocol

Kind = Literal["result", "published", "smoke"]

EDGE_WARNING = (
    "odsF of several boundary tools is in use and they differ by points; values of another tool are marked "
    "and never ranked."
)


REST = 7
"""Colour of backbones that have none of their own."""
LICENCES = (
    "Licence: of a row's weights, or of those that its training started from. For published rows it is "
    "that of the public code."
)


@dataclass(frozen=True)
class BoardRow:
    """One row: a published result, or the seeds of one configuration.

    Args:
        id: unique on the page.
        group: label of the rows that it compares with; empty if the section has one group.
        kind: `smoke` rows are tiny runs.
        method: as shown, without the certainty.
        certainty: of a published row, one of `CERTAINTIES`; empty for others.
        cells: in the order of the section's columns.
        records: one per seed.
        licence: of the weights, for published rows of the public code; empty where it is not known.
        colour: of the backbone, 0 to `REST`, which all rare backbones share.
        level: {task: corrected p} of scores that are level with the best of the group; None for the best.
    """

    id: str
    group: str
    kind: Kind
    method: str
    certainty: str
    cells: tuple[Cell, ...]
    records: tuple[Record, ...]
    licence: str = ""
    colour: int = REST
    level: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The backbone as papers call it, which its colour stands for."""
        return backbone_name(self.records[0].backbone)

    @property
    def verified(self) -> bool:
        """Shown from the start: a record, or a published value read at its source."""
        return self.certainty in ("", "stated")


@dataclass(frozen=True)
class Section:
    """One protocol.

    Args:
        protocol: id.
        title: heading.
        reading: sentences on how its numbers come about.
        columns: of the table.
        constants: rows of the constant predictor, (group, cells).
        rows: all others.
        notes: (mark or empty, text).
    """

    protocol: str
    title: str
    reading: tuple[str, ...]
    columns: tuple[Column, ...]
    constants: tuple[tuple[str, tuple[Cell, ...]], ...]
    rows: tuple[BoardRow, ...]
    notes: tuple[tuple[str, str], ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Labels of the groups, in the order of their rows."""
        return tuple(dict.fromkeys(row.group for row in self.rows))


def build_sections(
    records: Sequence[Record],
    *,
    certainties: Sequence[str] = CERTAINTIES,
    baseline: str | None = None,
    every_protocol: bool = False,
) -> list[Section]:
    """Group records by protocol, add published rows, average over seeds.

    Args:
        records: of any protocols.
        certainties: of the published rows to add; none if empty.
        baseline: compute gains over it, as `mtvision.report.baseline.with_gain`; a record for which that is
            not possible keeps what it has, and a note says so.
        every_protocol: also protocols that only have published rows.

    Raises:
        MixedRecordsError: records of one protocol do not fit into one table.
        UnknownNameError: an unknown certainty, or a baseline that no protocol of the records has.
    """
    if baseline is not None:
        require_baseline((record.protocol for record in records), baseline)
    published = {row.protocol for row in published_rows(certainties=certainties)}
    names = sorted({record.protocol for record in records} | (published if every_protocol else set()))
    sections: list[Section] = []
    for name in sorted(names, key=_place):
        own = [record for record in records if record.protocol == name]
        notes: list[tuple[str, str]] = []
        if baseline is not None:
            own, notes = _gains(own, baseline)
        others = published_records(name, certainties) if name in published else []
        if own or others:
            sections.append(_section(name, [*others, *own], notes, f"s{len(sections)}"))
    return sections


def _protocols() -> Mapping[str, Protocol]:
    """Protocols, imported late so that importing this package stays cheap."""
    from mtvision.protocols import PROTOCOLS

    return PROTOCOLS


def _place(protocol: str) -> tuple[int, str]:
    """The package's order of protocols, own ones after them."""
    known = list(_protocols())
    return (known.index(protocol) if protocol in known else len(known), protocol)


def _gains(records: Sequence[Record], baseline: str) -> tuple[list[Record], list[tuple[str, str]]]:
    single = [record for record in records if is_single_task(record)]
    result, failed = [], []
    for record in records:
        try:
            alone = [record] if is_single_task(record) else [record, *single]
            result.append(with_gain(alone, baseline)[0])
        except (ValueError, KeyError) as error:
            result.append(record)
            failed.append(str(error).strip("'\""))
    notes = [("", f"Gain over {baseline} not computed: {text}") for text in dict.fromkeys(failed)]
    return fold_single_task(result) if baseline == SINGLE_TASK else result, notes


def _section(name: str, records: Sequence[Record], notes: Sequence[tuple[str, str]], prefix: str) -> Section:
    grid = build_grid(records, columns=_columns(name, records), mixed="mark", ranked=False)
    seeds = [row for _, rows in rows_by_group(records) for row in rows]
    body = [row for row in grid.rows if row.kind != "constant"]
    rows = []
    for index, (runs, row) in enumerate(zip(seeds, body, strict=True)):
        method, certainty = _certainty(runs[0])
        kind = _kind(runs[0])
        rows.append(BoardRow(f"{prefix}r{index}", row.group, kind, method, certainty, row.cells, tuple(runs)))
    rows, leads = _ranked(grid, _best_first(grid, rows))
    rows, level_notes = _levelled(rows)
    rows = _coloured(rows)
    grid, rows, constants = _with_licences(grid, rows)
    title = next((record.protocol_title for record in records if record.protocol_title), name)
    return Section(
        name,
        definition.title if (definition := _protocols().get(name)) else title,
        _reading(name, records),
        grid.columns,
        constants,
        tuple(rows),
        (*grid.notes, *leads, *level_notes, *notes),
    )


def _levelled(rows: Sequence[BoardRow]) -> tuple[list[BoardRow], list[tuple[str, str]]]:
    """The rows with licences and with the scores that are level with the best of their group; and notes."""
    groups = list(dict.fromkeys(row.group for row in rows))
    levels = {}
    for group in groups:
        members = [row for row in rows if row.group == group and row.kind != "published"]
        levels[group] = level_rows([record for row in members for record in row.records])
    notes = [("", f"[{group}] {text}" if group else text) for group in groups for text in levels[group].notes]
    return [_completed(row, levels[row.group]) for row in rows], notes


def _completed(row: BoardRow, level: Level) -> BoardRow:
    first = row.records[0]
    published = row.kind == "published"
    licence = code_licence(row.method) if published else licence_of(first)
    names = {task: (first.method, first.backbone, task) for task in first.task_names}
    own = {} if published else {task: level.p[key] for task, key in names.items() if key in level.p}
    return replace(row, licence=licence, level=own)


def _coloured(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """A colour for each of the backbones that most rows have, those with a cost first."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row.family] += 1 + 100 * (row.records[0].cost is not None)
    places = {name: place for place, (name, _) in enumerate(counts.most_common())}
    return [replace(row, colour=min(places[row.family], REST)) for row in rows]


Constants = tuple[tuple[str, tuple[Cell, ...]], ...]


def _with_licences(grid: Grid, rows: Sequence[BoardRow]) -> tuple[Grid, list[BoardRow], Constants]:
    """The table with a column of licences, where any is known, before the scores."""
    constants = tuple((row.group, row.cells) for row in grid.rows if row.kind == "constant")
    if not any(row.licence for row in rows):
        return grid, list(rows), constants
    place = [column.key for column in grid.columns].index("provenance") + 1

    def wider(cells: Sequence[Cell], text: str) -> tuple[Cell, ...]:
        return (*cells[:place], Cell(text), *cells[place:])

    column = Column("licence", "licence", numeric=False)
    columns = (*grid.columns[:place], column, *grid.columns[place:])
    return (
        replace(grid, columns=columns, notes=(*grid.notes, ("", LICENCES))),
        [replace(row, cells=wider(row.cells, row.licence)) for row in rows],
        tuple((group, wider(cells, "")) for group, cells in constants),
    )


def _kind(record: Record) -> Kind:
    if is_published(record):
        return "published"
    return "smoke" if record.provenance == "smoke" else "result"


def _certainty(record: Record) -> tuple[str, str]:
    """Method and certainty; `published_records` has put what is not `stated` behind the method."""
    if not is_published(record):
        return record.method, ""
    for certainty in CERTAINTIES:
        if record.method.endswith(f" ({certainty})"):
            return record.method.removesuffix(f" ({certainty})"), certainty
    return record.method, "stated"


def _columns(name: str, records: Sequence[Record]) -> list[str]:
    """Method, backbone, provenance, the protocol's headline scores in its order, gain, costs, seeds."""
    found: dict[str, None] = {}
    for record in sorted(records, key=lambda item: -len(item.tasks)):
        found.update(dict.fromkeys(record.task_names))
    definition = _protocols().get(name)
    order = [task for task in (definition.task_names if definition else ()) if task in found]
    tasks = [*order, *(task for task in found if task not in order)]
    extras = usual_extras(records)
    if len(latency_conditions(records)) == 1:  # milliseconds of different devices share no column
        extras.append("latency")
    several = any(len(group) > 1 for group in group_seeds(records))
    return ["method", "backbone", "provenance", *tasks, *extras, *(["seeds"] if several else [])]


def latency_conditions(records: Sequence[Record]) -> list[str]:
    """The different conditions under which latency was measured: device, threads, image size, batch."""
    return sorted({text for record in records if (text := latency_condition(record))})


def latency_condition(record: Record) -> str:
    """Device, threads, image size and batch of a record's latency; empty if it has none."""
    cost = record.cost or {}
    latency: Mapping[str, Any] | None = cost.get("latency")
    if not latency:
        return ""
    height, width = cost["image_size"]
    threads = f", {latency['threads']} threads" if latency.get("threads") else ""
    return f"{latency.get('device')}{threads}, {height}×{width}, batch {cost['batch_size']}"


def _ranked(grid: Grid, rows: Sequence[BoardRow]) -> tuple[list[BoardRow], tuple[tuple[str, str], ...]]:
    """The rows with ranks within each group, unverified published values without; and notes on the leads."""
    taking = [row for row in rows if row.verified]
    ranked = Grid("", grid.columns, tuple(Row(row.cells, group=row.group) for row in taking)).ranked()
    places = {row.id: own.cells for row, own in zip(taking, ranked.rows, strict=True)}
    return [replace(row, cells=places.get(row.id, row.cells)) for row in rows], ranked.notes


def _best_first(grid: Grid, rows: Sequence[BoardRow]) -> list[BoardRow]:
    """By gain, then by the first score, group by group; rows without one come after, in their order."""
    result = list(rows)
    directed = [index for index, column in enumerate(grid.columns) if column.higher_is_better is not None]
    keys = [index for index in directed if grid.columns[index].key == "gain"]
    for index in reversed(keys + directed[:1]):
        sign = -1 if grid.columns[index].higher_is_better else 1

        def place(row: BoardRow, index: int = index, sign: int = sign) -> tuple[bool, float]:
            value = row.cells[index].value
            return value is None, sign * (value or 0.0)

        result.sort(key=place)
    order = list(dict.fromkeys(row.group for row in sorted(rows, key=lambda row: row.kind == "smoke")))
    return sorted(result, key=lambda row: order.index(row.group))


def _reading(name: str, records: Sequence[Record]) -> tuple[str, ...]:
    definition = _protocols().get(name)
    if definition is None:
        return ("A protocol of its own, defined in the records' configs; nothing else compares with it.",)
    lines = []
    if definition.splits:
        counts = ", ".join(f"{split} {count}" for split, count in definition.splits.items())
        lines.append(f"Images: {counts}.")
    if definition.eval_size:
        lines.append("Images are padded to {}×{} for scoring.".format(*definition.eval_size))
    lines.append(f"The {definition.checkpoint_rule} checkpoint is scored.")
    if any("edge" in record.task_names for record in records):
        lines.append(EDGE_WARNING)
    if definition.source:
        lines.append(f"Definition: {definition.source}.")
    return tuple(lines)
