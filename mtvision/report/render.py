"""A grid as text: terminal, Markdown, LaTeX, CSV, HTML. Whatever a record contains, it stays text."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtvision.report.grid import Cell, Column, Grid, Row

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Control characters, line breaks and overrides of the text direction."""


def plain(text: str) -> str:
    """One line without control characters."""
    return _CONTROL.sub(" ", text)


def _parts(cell: Cell) -> str:
    return cell.text + (f" ± {cell.spread}" if cell.spread else "")


def _heading(column: Column) -> str:
    group = f"{column.group} " if column.group else ""
    return plain(f"{group}{column.title}" + (f" {column.arrow}" if column.arrow else ""))


def _begins_group(grid: Grid, index: int) -> bool:
    """Whether a row is the first of one of several groups; a line with the group's label stands above it."""
    group = grid.rows[index].group
    return bool(group) and (index == 0 or grid.rows[index - 1].group != group)


def note_lines(grid: Grid) -> list[str]:
    """One line per note, its mark in front."""
    return [f"{mark} {plain(text)}".strip() for mark, text in grid.notes]


def rich_table(grid: Grid) -> Table:
    """The grid as a rich table, to print on a console: best bold, second underlined."""
    notes = "\n".join(note_lines(grid))
    table = Table(
        title=Text(plain(grid.title), style="bold"),
        caption=Text(notes) if notes else None,
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for column in grid.columns:
        table.add_column(Text(_heading(column)), justify="right" if column.numeric else "left", no_wrap=True)
    for index, row in enumerate(grid.rows):
        if _begins_group(grid, index):
            table.add_row(Text(plain(row.group), style="italic"))
        following = grid.rows[index + 1] if index + 1 < len(grid.rows) else None
        last = following is None or (following.group, following.kind) != (row.group, row.kind)
        styles = {0: "", 1: "bold", 2: "underline"}
        cells = []
        for cell in row.cells:
            text = Text(plain(cell.text), style=styles[cell.rank])
            text.append((f" ± {cell.spread}" if cell.spread else "") + cell.mark, style="")
            cells.append(text)
        table.add_row(*cells, end_section=last, style="dim" if row.kind == "constant" else None)
    return table


def render_terminal(grid: Grid) -> str:
    """Plain text with lines, without colours; print `rich_table` itself for bold and underline."""
    file = io.StringIO()
    table = rich_table(replace(grid, notes=()))
    Console(file=file, width=10_000, color_system=None, legacy_windows=False).print(table)
    text = "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")
    return "\n\n".join([text, "\n".join(note_lines(grid))]).strip()


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell too."""
    text = html.escape(plain(text), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def render_markdown(grid: Grid) -> str:
    """A GitHub table: best bold, second underlined."""
    styles: dict[int, Callable[[str], str]] = {
        0: lambda text: text,
        1: lambda text: f"**{text}**",
        2: lambda text: f"<u>{text}</u>",
    }

    def entry(cell: Cell) -> str:
        if not cell.text:
            return ""
        spread = f" ± {cell.spread}" if cell.spread else ""
        return styles[cell.rank](escape_markdown(cell.text)) + spread + cell.mark

    lines = [f"**{escape_markdown(grid.title)}**", ""] if grid.title else []
    lines.append("| " + " | ".join(escape_markdown(_heading(column)) for column in grid.columns) + " |")
    lines.append("| " + " | ".join("---:" if column.numeric else ":---" for column in grid.columns) + " |")
    for index, row in enumerate(grid.rows):
        if _begins_group(grid, index):
            lines.append(f"| *{escape_markdown(row.group)}* |" + " |" * (len(grid.columns) - 1))
        lines.append("| " + " | ".join(entry(cell) for cell in row.cells) + " |")
    for mark, text in grid.notes:
        lines += ["", f"{mark} {escape_markdown(text)}".strip()]
    return "\n".join(lines)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "[": "{[}", "]": "{]}", "*": "{*}",  # brackets: not an option of the \\ before
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "Δ": r"$\Delta$", "δ": r"$\delta$", "°": r"$^\circ$", "²": r"$^2$", "³": r"$^3$", "–": "--", "−": "$-$",
    "×": r"$\times$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S{}", "¶": r"\P{}", "‖": r"$\Vert$",
    "…": r"\dots{}", "≤": r"$\leq$", "≥": r"$\geq$", "µ": r"$\mu$", "α": r"$\alpha$", "λ": r"$\lambda$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; characters that are not in pdfLaTeX's fonts become `?`."""
    result = []
    for letter in plain(text):
        known = letter.isascii() or (letter.isalpha() and ord(letter) < 0x180)
        result.append(_LATEX.get(letter) or (letter if known else "?"))
    return "".join(result)


def render_latex(grid: Grid) -> str:
    """A `table` with booktabs' rules, best bold, second underlined. Needs `booktabs` and `[T1]{fontenc}`."""
    styles = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}

    def entry(cell: Cell) -> str:
        if not cell.text:
            return ""
        spread = rf" {{\scriptsize$\pm${cell.spread}}}" if cell.spread else ""
        mark = rf"\textsuperscript{{{escape_latex(cell.mark)}}}" if cell.mark else ""
        return styles[cell.rank].format(_latex_number(cell)) + spread + mark

    lines = [r"\begin{table}[t]", r"\centering"]
    if grid.title:
        lines.append(rf"\caption{{{escape_latex(grid.title)}}}")
    lines.append(rf"\begin{{tabular}}{{{''.join('r' if item.numeric else 'l' for item in grid.columns)}}}")
    lines.append(r"\toprule")
    lines += _latex_groups(grid)
    lines.append(" & ".join(escape_latex(f"{c.title} {c.arrow}".strip()) for c in grid.columns) + r" \\")
    for label, _, rows in _sections(grid):
        lines.append(r"\midrule")
        if label:
            lines.append(rf"\multicolumn{{{len(grid.columns)}}}{{l}}{{{escape_latex(label)}}} \\")
        lines += [" & ".join(entry(cell) for cell in row.cells) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    for mark, text in grid.notes:
        prefix = rf"\textsuperscript{{{escape_latex(mark)}}} " if mark else ""
        lines.append(rf"\par\smallskip{{\footnotesize {prefix}{escape_latex(text)}}}")
    return "\n".join([*lines, r"\end{table}"])


def _latex_number(cell: Cell) -> str:
    if cell.value is not None and cell.text.startswith(("-", "+")):
        return f"${cell.text[0]}${escape_latex(cell.text[1:])}"
    return escape_latex(cell.text)


def _latex_groups(grid: Grid) -> list[str]:
    if not any(column.group for column in grid.columns):
        return []
    cells, rules, start = [], [], 1
    for group, members in groupby(grid.columns, key=lambda column: column.group):
        count = len(list(members))
        if group:
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(group)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        else:
            cells += [""] * count
        start += count
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _sections(grid: Grid) -> Iterator[tuple[str, str, list[Row]]]:
    """(label of a group that begins here, else empty; kind of rows; rows) for rows of one group and kind."""
    before = ""
    for (group, kind), rows in groupby(grid.rows, key=lambda row: (row.group, row.kind)):
        yield ("" if group == before else group), kind, list(rows)
        before = group


def render_csv(grid: Grid) -> str:
    """All digits; a `std` column beside every column that has one; no ranks. Notes are left out.

    Where rows are parted, the first column is their group.
    """
    spreads = [
        any(row.cells[index].std is not None for row in grid.rows) for index in range(len(grid.columns))
    ]
    parted = any(grid.groups)
    heading = ["group", "kind"] if parted else ["kind"]
    for column, has_spread in zip(grid.columns, spreads, strict=True):
        heading += [column.key, f"{column.key} std"] if has_spread else [column.key]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heading)
    for row in grid.rows:
        line: list[str | float] = [plain(row.group), row.kind] if parted else [row.kind]
        for cell, has_spread in zip(row.cells, spreads, strict=True):
            line.append(plain(cell.text) if cell.value is None else _number(cell.value))
            if has_spread:
                line.append("" if cell.std is None else cell.std)
        writer.writerow(line)
    return file.getvalue().rstrip("\n")


def _number(value: float) -> float | int:
    return int(value) if abs(value) >= 1 and value.is_integer() else value


def render_html(grid: Grid) -> str:
    """A `<table>` without style: classes `best`, `second` and the row's kind; `data-value` has all digits."""

    def entry(cell: Cell, column: Column) -> str:
        classes = " ".join(
            filter(None, ["number" if column.numeric else "", {1: "best", 2: "second"}.get(cell.rank, "")])
        )
        attributes = f' class="{classes}"' if classes else ""
        attributes += "" if cell.value is None else f' data-value="{cell.value!r}"'
        text = html.escape(plain(cell.text))
        text = {0: text, 1: f"<strong>{text}</strong>", 2: f"<u>{text}</u>"}[cell.rank]
        spread = f" <small>± {html.escape(cell.spread)}</small>" if cell.spread else ""
        mark = f"<sup>{html.escape(cell.mark)}</sup>" if cell.mark else ""
        return f"<td{attributes}>{text}{spread}{mark}</td>"

    lines = [
        '<table class="mtvision">',
        f"<caption>{html.escape(plain(grid.title))}</caption>",
        "<thead>",
        "<tr>",
    ]
    for column in grid.columns:
        kind = ' class="number"' if column.numeric else ""
        heading = html.escape(_heading(column))
        lines.append(f'<th scope="col" data-key="{html.escape(plain(column.key))}"{kind}>{heading}</th>')
    lines += ["</tr>", "</thead>"]
    for label, kind, rows in _sections(grid):
        lines.append(f'<tbody class="{kind}">')
        if label:
            text = html.escape(plain(label))
            lines.append(f'<tr class="group"><th colspan="{len(grid.columns)}">{text}</th></tr>')
        for row in rows:
            cells = "".join(entry(cell, column) for cell, column in zip(row.cells, grid.columns, strict=True))
            lines.append(f"<tr>{cells}</tr>")
        lines.append("</tbody>")
    lines.append("</table>")
    for mark, text in grid.notes:
        sign = f"<sup>{html.escape(mark)}</sup> " if mark else ""
        lines.append(f'<p class="note">{sign}{html.escape(plain(text))}</p>')
    return "\n".join(lines)


FORMATS: dict[str, Callable[[Grid], str]] = {
    "terminal": render_terminal,
    "markdown": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
    "html": render_html,
}
