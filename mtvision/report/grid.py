"""A table before it has a format: columns, rows of formatted cells, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mtvision.core.naming import look_up

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
    """

    key: str
    title: str
    group: str = ""
    higher_is_better: bool | None = None
    numeric: bool = True

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
    """

    text: str = ""
    value: float | None = None
    spread: str = ""
    std: float | None = None
    rank: int = 0
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """Cells in the order of the columns, and what kind of row it is."""

    cells: tuple[Cell, ...]
    kind: RowKind = "result"


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
        """Copy whose rows, within each kind, go from best to worst (text and undirected columns: ascending).

        Rows without a value come last, rows with equal values stay in order.

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

        kinds = list(dict.fromkeys(row.kind for row in self.rows))
        rows = [row for kind in kinds for row in sorted((r for r in self.rows if r.kind == kind), key=place)]
        return replace(self, rows=tuple(rows))

    def ranked(self, kinds: Iterable[RowKind] = ("result", "published")) -> Grid:
        """Copy with the best and, from three rows on, the second best entry of every directed column.

        Numbers that are printed alike rank alike. A column with one number only gets no rank.
        """
        kinds = set(kinds)
        columns = [
            _ranks(column, [row.cells[position] if row.kind in kinds else Cell() for row in self.rows])
            for position, column in enumerate(self.columns)
        ]
        rows = [
            replace(
                row,
                cells=tuple(
                    replace(cell, rank=column[index]) for cell, column in zip(row.cells, columns, strict=True)
                ),
            )
            for index, row in enumerate(self.rows)
        ]
        return replace(self, rows=tuple(rows))


def _ranks(column: Column, cells: Sequence[Cell]) -> list[int]:
    taking_part = [cell for cell in cells if cell.value is not None and not cell.mark and cell.text != "–"]
    if column.higher_is_better is None or len(taking_part) < 2:
        return [0] * len(cells)
    printed = sorted({float(cell.text) for cell in taking_part}, reverse=column.higher_is_better)
    places = {printed[0]: 1}
    if len(taking_part) > 2 and len(printed) > 1:
        places[printed[1]] = 2
    return [places.get(float(cell.text), 0) if cell in taking_part else 0 for cell in cells]


@dataclass
class Notes:
    """Collects notes and gives a mark to each, the same mark for the same text."""

    marked: dict[str, str] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The mark of a note."""
        if text not in self.marked:
            count = len(self.marked)
            self.marked[text] = MARKS[count] if count < len(MARKS) else f"({count + 1})"
        return self.marked[text]

    def add(self, text: str) -> None:
        """A note without a mark, once."""
        if text not in self.plain:
            self.plain.append(text)

    def listed(self) -> tuple[tuple[str, str], ...]:
        """(mark or empty, text), marked ones first."""
        return (*((mark, text) for text, mark in self.marked.items()), *(("", text) for text in self.plain))
