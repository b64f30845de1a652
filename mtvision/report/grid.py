"""A table before it has a format: columns, rows of formatted cells, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mtvision.core.naming import look_up
from mtvision.report.comparable.leads import SEEDS, lead

UNTESTED = ("", "Where rows have one seed, bold marks the best number: no lead was tested.")
"""A note, below columns where no row but perhaps the best has two seeds."""

MARKS = ("†", "‡", "§", "¶", "‖", "††", "‡‡", "§§")

RowKind = Literal["result", "constant", "published", "difference"]


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        key: `method`, `depth/rmse`, `gain`, …; the heading in CSV.
        title: heading.
        group: heading over several columns (the task), or empty.
        higher_is_better: direction, drawn as an arrow; None = no arrow and no ranking.
        numeric: numbers are set to the right, text to the left.
        factor: what a stored number is multiplied with to be printed.
        digits: decimals of the printed number.
    """

    key: str
    title: str
    group: str = ""
    higher_is_better: bool | None = None
    numeric: bool = True
    factor: float = 1.0
    digits: int = 4

    @property
    def arrow(self) -> str:
        """`↑`, `↓` or nothing."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


@dataclass(frozen=True)
class Cell:
    """One entry.

    Args:
        text: what is printed, without ± and marks; empty where nothing was run.
        value: the number behind it, all digits, for sorting, ranking and CSV.
        spread: printed standard deviation over seeds, or empty.
        std: the number behind `spread`.
        rank: 1 = best of its column, 2 = second, 0 = neither.
        mark: refers to a note, e.g. `†`. A marked cell is not comparable with its column and never ranked.
        seeds: (seed, number) of the runs behind `value`, to tell leads from noise.
    """

    text: str = ""
    value: float | None = None
    spread: str = ""
    std: float | None = None
    rank: int = 0
    mark: str = ""
    seeds: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Row:
    """Cells in the order of the columns, and what kind of row it is.

    Args:
        cells: as many as there are columns.
        kind: rows of different kind are separated by a line.
        group: label of the group; numbers of different groups do not compare. Empty where there is one group.
    """

    cells: tuple[Cell, ...]
    kind: RowKind = "result"
    group: str = ""


@dataclass(frozen=True)
class Grid:
    """A whole table.

    Args:
        title: what the table shows.
        columns: left to right.
        rows: top to bottom; rows of different kind are separated by a line.
        notes: (mark or empty, text), below the table.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...] = ()

    def sorted_by(self, key: str) -> Grid:
        """Copy whose rows, within each group and kind, go from best to worst.

        Text and columns without direction are ascending. Rows without a value come last, and rows with equal
        values stay in order.

        Raises:
            UnknownNameError: no such column; a task's name stands for its first column.
        """
        keys = {column.key: index for index, column in reversed(list(enumerate(self.columns)))}
        names = {**{name.partition("/")[0]: index for name, index in reversed(keys.items())}, **keys}
        index = look_up("column to sort by", key, names)
        sign = -1 if self.columns[index].higher_is_better else 1

        def place(row: Row) -> tuple[bool, float, str]:
            cell = row.cells[index]
            missing = cell.value is None and (self.columns[index].numeric or not cell.text)
            return missing, sign * (cell.value or 0.0), "" if self.columns[index].numeric else cell.text

        parts: dict[tuple[str, RowKind], list[Row]] = {}
        for row in self.rows:
            parts.setdefault((row.group, row.kind), []).append(row)
        return replace(self, rows=tuple(row for rows in parts.values() for row in sorted(rows, key=place)))

    @property
    def groups(self) -> tuple[str, ...]:
        """Labels of the groups, in their order; one empty label where nothing is parted."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def ranked(self, kinds: Iterable[RowKind] = ("result", "published")) -> Grid:
        """Copy with the best and, from three rows on, the second best entry of every column, group by group.

        Numbers that are printed alike rank alike. A column with one number only gets no rank. Neither does a
        column whose lead is inside the noise. Where the best row and another one have two seeds, a paired t
        test over their common seeds must tell them apart. A best row of one seed has no rank beside rows of
        several. Notes say by how much, with interval and p. Rows of one seed each rank by their numbers, and
        a note says that no lead was tested.
        """
        kinds = set(kinds)
        ranks = [[0] * len(self.columns) for _ in self.rows]
        notes: list[tuple[str, str]] = []
        untested = False
        for group in self.groups:
            members = [n for n, row in enumerate(self.rows) if row.group == group and row.kind in kinds]
            for position, column in enumerate(self.columns):
                cells = [self.rows[index].cells[position] for index in members]
                names = _names(self.columns, [self.rows[index] for index in members])
                lead = smallest_lead(column, cells, names)
                if lead is not None:
                    notes.append(("", (f"[{group}] " if group else "") + lead.text))
                untested |= lead is None and _measured(column, cells) > 1
                if lead is None or lead.holds:
                    for index, rank in zip(members, _ranks(column, cells), strict=True):
                        ranks[index][position] = rank
        if untested:
            notes.append(UNTESTED)
        rows = [
            replace(row, cells=tuple(replace(cell, rank=r) for cell, r in zip(row.cells, own, strict=True)))
            for row, own in zip(self.rows, ranks, strict=True)
        ]
        return replace(self, rows=tuple(rows), notes=(*self.notes, *notes))


def _names(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """The first text of each row, mostly its method; where two rows share it, the second one too."""
    texts = [
        [cell.text for column, cell in zip(columns, row.cells, strict=True) if not column.numeric]
        for row in rows
    ]
    first = Counter(item[0] for item in texts if item)
    return [", ".join(item[: 1 + (first[item[0]] > 1)]) if item else "" for item in texts]


def _comparable(column: Column, cells: Sequence[Cell]) -> list[int]:
    """Places of the cells that take part in a ranking; none in a column without direction."""
    if column.higher_is_better is None:
        return []
    return [
        n for n, cell in enumerate(cells) if cell.value is not None and not cell.mark and cell.text != "–"
    ]


def _measured(column: Column, cells: Sequence[Cell]) -> int:
    """Cells that rank and have seeds; papers' have none."""
    return sum(bool(cells[n].seeds) for n in _comparable(column, cells))


def _ranks(column: Column, cells: Sequence[Cell]) -> list[int]:
    taking_part = _comparable(column, cells)
    if len(taking_part) < 2:
        return [0] * len(cells)
    printed = sorted({float(cells[n].text) for n in taking_part}, reverse=bool(column.higher_is_better))
    places = {printed[0]: 1}
    if len(taking_part) > 2 and len(printed) > 1:
        places[printed[1]] = 2
    return [places.get(float(cell.text), 0) if n in taking_part else 0 for n, cell in enumerate(cells)]


@dataclass(frozen=True)
class NamedLead:
    """The lead of a column's best row over the row that is hardest to tell from it.

    Args:
        text: with names, size, interval and p.
        holds: whether it is more than noise.
    """

    text: str
    holds: bool


def smallest_lead(column: Column, cells: Sequence[Cell], names: Sequence[str]) -> NamedLead | None:
    """Test the best cell against every other one; None where no other has `SEEDS` seeds, or it has none.

    The best row leads only if it can be told from every other row. So the largest p decides, and it needs no
    correction for their number. One seed cannot lead rows whose seeds show how much they vary.
    """
    up = bool(column.higher_is_better)
    order = sorted(_comparable(column, cells), key=lambda n: (cells[n].value or 0.0) * (-1 if up else 1))
    others = [n for n in order[1:] if len(cells[n].seeds) >= SEEDS]
    if not others or not cells[order[0]].seeds:
        return None  # papers give one number
    best = order[0]
    found = [(lead(dict(cells[best].seeds), dict(cells[n].seeds), higher_is_better=up), n) for n in others]
    worst, other = max(found, key=lambda item: item[0].p)
    size = f"{worst.mean * column.factor:.{column.digits}f}"
    if worst.interval is None:
        verdict = "not bold, the lead was not tested: "
        evidence = f"{worst.count} common seed{'s' * (worst.count != 1)}"
    else:
        verdict = "" if worst.holds else "not bold, the lead is inside the noise: "
        low, high = (f"{bound * column.factor:.{column.digits}f}" for bound in worst.interval)
        evidence = f"95 % interval {low} to {high}, paired t over {worst.count} seeds, p = {worst.p:.2g}"
    title = f"{column.group} {column.title}".strip()
    text = f"{title}: {verdict}{names[best]} leads {names[other]} by {size} ({evidence})."
    return NamedLead(text, worst.holds)


@dataclass
class Notes:
    """Collects notes and gives a mark to each, the same mark for the same text."""

    marked: dict[str, str] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    group: str = ""
    """Put before every note without a mark while the rows of one of several groups are made."""

    def mark(self, text: str) -> str:
        """The mark of a note."""
        if text not in self.marked:
            count = len(self.marked)
            self.marked[text] = MARKS[count] if count < len(MARKS) else f"({count + 1})"
        return self.marked[text]

    def add(self, text: str) -> None:
        """A note without a mark, once."""
        text = f"[{self.group}] {text}" if self.group else text
        if text not in self.plain:
            self.plain.append(text)

    def listed(self) -> tuple[tuple[str, str], ...]:
        """(mark or empty, text), marked ones first."""
        return (*((mark, text) for text, mark in self.marked.items()), *(("", text) for text in self.plain))
