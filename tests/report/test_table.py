"""Tables equal stored text, average by the book and refuse to mix."""

import csv
import io
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_records import TASKS, make_gain, make_record

from mtvision.core.naming import UnknownNameError
from mtvision.metrics.gain import HIGHER_IS_BETTER
from mtvision.report.display import SCORES, display_of
from mtvision.report.grid import Cell, Column, Grid, Row
from mtvision.report.render import FORMATS, escape_latex, render_html, render_latex, render_markdown
from mtvision.report.table import MixedRecordsError, build_grid, group_seeds, render_table

HOSTILE = (
    "</td><script>alert('x')</script> | \\input{/etc/a} $x_1$ & 1% #1 ~^ `a` **b** [c](d) \x1b[31m\nnext"
)
CONSTANT = {"semseg": {"miou": 0.05}, "depth": {"rmse": 1.2}}


@pytest.fixture
def records():
    """One method with three seeds, two with one."""
    runs = [
        make_record(0.5 + 0.01 * seed, 0.6 - 0.02 * seed, seed=seed, constant=CONSTANT) for seed in range(3)
    ]
    runs += [make_record(0.48, 0.5, method="B", row="b"), make_record(0.47, 0.55, method="C", row="c")]
    return [replace(run, gain=make_gain(run)) for run in runs]


MARKDOWN = """\
**Synthetic scenes**

| method | backbone | semseg mIoU ↑ | depth RMSE m ↓ | Δm % ↑ | params M | MACs G | seeds |
| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |
| constant predictor |  | 5.00 | 1.2000 |  |  |  |  |
| ParallelDecoder | tiny | **51.00** ± 1.00 | 0.5800 ± 0.0200 | 27.50 ± 2.50 | 1.23 | 2.50 | 3 |
| B | tiny | <u>48.00</u> | 0.5000 | 28.75 | 1.23 | 2.50 | 1 |
| C | tiny | 47.00 | 0.5500 | 24.37 | 1.23 | 2.50 | 1 |

Δm: gain over single-task.

depth RMSE m: not bold, the lead was not tested: B leads ParallelDecoder by 0.0800 (1 common seed).

Δm %: not bold, the lead was not tested: B leads ParallelDecoder by 1.25 (1 common seed).

Where rows have one seed, bold marks the best number: no lead was tested."""

TERMINAL = """\
Synthetic scenes

 method               backbone   semseg mIoU ↑    depth RMSE m ↓         Δm % ↑   params M   MACs G   seeds
 ──────────────────────────────────────────────────────────────────────────────────────────────────────────
 constant predictor                       5.00            1.2000

 ParallelDecoder      tiny        51.00 ± 1.00   0.5800 ± 0.0200   27.50 ± 2.50       1.23     2.50       3
 B                    tiny               48.00            0.5000          28.75       1.23     2.50       1
 C                    tiny               47.00            0.5500          24.37       1.23     2.50       1

Δm: gain over single-task.
depth RMSE m: not bold, the lead was not tested: B leads ParallelDecoder by 0.0800 (1 common seed).
Δm %: not bold, the lead was not tested: B leads ParallelDecoder by 1.25 (1 common seed).
Where rows have one seed, bold marks the best number: no lead was tested."""

LATEX = r"""
\begin{tabular}{llrrrrrr}
\toprule
 &  & \multicolumn{1}{c}{semseg} & \multicolumn{1}{c}{depth} &  &  &  &  \\
\cmidrule(lr){3-3}\cmidrule(lr){4-4}
method & backbone & mIoU $\uparrow$ & RMSE m $\downarrow$ & $\Delta$m \% $\uparrow$ & params M & MACs G & seeds \\
\midrule
constant predictor &  & 5.00 & 1.2000 &  &  &  &  \\
\midrule
ParallelDecoder & tiny & \textbf{51.00} {\scriptsize$\pm$1.00} & 0.5800 {\scriptsize$\pm$0.0200} & 27.50 {\scriptsize$\pm$2.50} & 1.23 & 2.50 & 3 \\
B & tiny & \underline{48.00} & 0.5000 & 28.75 & 1.23 & 2.50 & 1 \\
C & tiny & 47.00 & 0.5500 & 24.37 & 1.23 & 2.50 & 1 \\
\bottomrule
\end{tabular}
"""  # noqa: E501


def test_markdown(records):
    assert render_table(records, "markdown") == MARKDOWN


def test_terminal(records):
    assert render_table(records) == TERMINAL
    assert "\x1b" not in render_table(records)


def test_latex(records):
    assert LATEX.strip() in render_table(records, "latex")


def test_csv_has_all_digits(records):
    rows = list(csv.DictReader(io.StringIO(render_table(records, "csv"))))
    assert [row["kind"] for row in rows] == ["constant", "result", "result", "result"]
    assert float(rows[1]["semseg/miou"]) == pytest.approx(0.51, rel=1e-15)
    assert float(rows[1]["depth/rmse std"]) == pytest.approx(0.02, rel=1e-12)
    assert rows[2]["depth/rmse std"] == ""
    assert rows[2]["parameters"] == "1234567"


def test_seeds_are_averaged_by_the_book():
    values = [0.31, 0.42, 0.37, 0.44]
    grid = build_grid([make_record(value, seed=seed) for seed, value in enumerate(values)])
    cell = grid.rows[0].cells[2]
    mean = sum(values) / 4
    assert cell.value == pytest.approx(mean, rel=1e-14)
    assert cell.std == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 3), rel=1e-12)
    assert (cell.text, cell.spread) == ("38.50", "5.80")
    assert grid.columns[-1].key == "seeds"
    assert grid.rows[0].cells[-1].text == "4"


def test_of_two_runs_with_one_seed_the_newer_counts():
    old, new = make_record(0.1), make_record(0.9, created="2027-01-01T00:00:00Z")
    for runs in ([old, new], [new, old]):
        assert group_seeds(runs) == [[new]]
    assert "1 older run(s) of the same configuration and seed left out" in render_table([old, new])


def test_what_was_not_run_is_empty_and_what_is_undefined_is_a_dash():
    single = make_record(row="single", scores={"semseg": {"miou": 0.4}}, tasks=TASKS[:1])
    undefined = make_record(rmse=math.nan)
    grid = build_grid([undefined, single])
    assert [row.cells[3].text for row in grid.rows] == ["–", ""]
    assert all(cell.rank == 0 for row in grid.rows for cell in [row.cells[3]])


def test_protocols_are_never_mixed():
    with pytest.raises(
        MixedRecordsError, match=r"2 protocols cannot share a table: other \(1\), synthetic-scenes \(1\)"
    ):
        render_table([make_record(), make_record(protocol="other")])


def test_one_protocol_with_two_meanings_is_refused():
    changed = [{**TASKS[0], "headline": "pixel_accuracy"}, TASKS[1]]
    with pytest.raises(
        MixedRecordsError, match=r"task 'semseg' .* headline 'miou' in one record and 'pixel_accuracy'"
    ):
        render_table([make_record(), make_record(row="x", tasks=changed)])


def test_evaluators_are_refused_or_marked_but_never_ranked():
    quick = [TASKS[0], {**TASKS[1], "evaluator": "protocol with max_depth=5"}]
    runs = [
        make_record(rmse=0.6),
        make_record(rmse=0.1, row="q", tasks=quick),
        make_record(rmse=0.7, row="z"),
    ]
    with pytest.raises(MixedRecordsError, match=r"column depth/rmse: scores of 2 evaluators .*max_depth=5"):
        render_table(runs)
    text = render_table(runs, "markdown", mixed="mark", columns=["method", "depth"])
    assert "| ParallelDecoder | 0.1000† |" in text
    assert "**0.6000**" in text
    assert "† another evaluator: protocol with max\\_depth=5." in text
    assert render_table(runs, columns=["method", "semseg"])  # without the column there is nothing to refuse


def test_one_other_evaluator_throughout_is_named():
    quick = [TASKS[0], {**TASKS[1], "evaluator": "protocol with max_depth=5"}]
    assert "depth/rmse is scored by: protocol with max_depth=5." in render_table([make_record(tasks=quick)])


def test_gains_over_different_baselines_are_marked_and_conventions_refused(records):
    other = {**records[3].gain, "baseline": {**records[3].gain["baseline"], "name": "other network"}}
    grid = build_grid([records[0], replace(records[3], gain=other), records[4]])
    column = [item.key for item in grid.columns].index("gain")
    assert [row.cells[column].mark for row in grid.rows] == ["", "†", "‡", "†"]
    assert all(row.cells[column].rank == 0 for row in grid.rows)
    with pytest.raises(MixedRecordsError, match="conventions headline, metrics"):
        build_grid([records[0], replace(records[3], gain={**other, "convention": "metrics"})])


def test_columns_can_be_chosen():
    grid = build_grid([make_record()], columns=["backbone", "semseg/pixel_accuracy", "depth", "macs"])
    assert [column.key for column in grid.columns] == [
        "backbone",
        "semseg/pixel_accuracy",
        "depth/rmse",
        "macs",
    ]
    assert [cell.text for cell in grid.rows[0].cells] == ["tiny", "75.00", "0.6000", "2.50"]
    with pytest.raises(UnknownNameError, match=r"Unknown column 'depth/rmes'. Did you mean 'depth/rmse'"):
        build_grid([make_record()], columns=["depth/rmes"])
    with pytest.raises(UnknownNameError, match="Unknown table format 'markdwn'"):
        render_table([make_record()], "markdwn")
    with pytest.raises(ValueError, match="no records"):
        render_table([])


def with_parameters(record, **counts):
    return replace(record, cost={**record.cost, "parameters": {**record.cost["parameters"], **counts}})


def test_trained_and_active_parameters_have_columns_where_they_are_fewer(records):
    def extras(*rows):
        grid = build_grid(rows)
        return {
            column.title: [row.cells[place].text for row in grid.rows]
            for place, column in enumerate(grid.columns)
            if column.key in ("parameters", "trainable", "active", "macs")
        }

    whole, frozen = records[3], with_parameters(records[4], trainable=200_000, active=1_234_567)
    experts = with_parameters(make_record(row="e", method="E"), active=900_000)
    assert list(extras(whole)) == ["params M", "MACs G"]
    assert extras(whole, frozen)["trained M"] == ["1.23", "0.20"]
    found = extras(whole, frozen, experts)
    assert list(found) == ["params M", "trained M", "active M", "MACs G"]
    assert found["active M"] == ["", "1.23", "0.90"]
    assert "active M: the parameters that one token reads" in render_table([whole, experts])


def test_ranks_follow_direction_and_printed_ties():
    column = (Column("a", "a", higher_is_better=False),)
    rows = tuple(Row((Cell(text, float(text)),)) for text in ("1.00", "0.50", "0.50", "0.75"))
    ranked = Grid("", column, (*rows, Row((Cell("0.10", 0.1),), "constant"))).ranked()
    assert [row.cells[0].rank for row in ranked.rows] == [0, 1, 1, 2, 0]
    two = Grid("", column, rows[:2]).ranked()
    assert [row.cells[0].rank for row in two.rows] == [0, 1]  # a second of two is the last
    assert Grid("", column, rows[:1]).ranked().rows[0].cells[0].rank == 0


def test_smoke_runs_say_so():
    assert "not comparable with published results" in render_table([make_record(provenance="smoke")])
    mixed = render_table([make_record(provenance="smoke"), make_record()])
    assert "provenance" in mixed
    assert "not comparable" not in mixed


def test_directions_agree_with_the_metrics():
    assert {name: item.higher_is_better for name, item in SCORES.items()} == HIGHER_IS_BETTER


def test_units_and_unknown_scores():
    task = {"metric": "depth", "headline": "rmse", "higher_is_better": False, "unit": "px"}
    assert display_of(task, "rmse").unit == "px"
    assert display_of({**task, "metric": "normals", "unit": ""}, "rmse").digits == 2
    own = display_of({**task, "headline": "my_score"}, "my_score")
    assert (own.title, own.higher_is_better, own.text(1.23456)) == ("my_score", False, "1.2346")


@pytest.fixture
def hostile():
    texts = {"method": HOSTILE, "backbone": HOSTILE, "protocol_title": HOSTILE, "source": HOSTILE}
    tasks = [{**TASKS[0], "unit": HOSTILE, "evaluator": HOSTILE}, TASKS[1]]
    return make_record(**texts, tasks=tasks)


class Collector(HTMLParser):
    """Tags and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_hostile_text_stays_text_in_html(hostile):
    page = Collector()
    page.feed(render_table([hostile], "html", columns=["method", "backbone", "source", "semseg"]))
    allowed = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p", "small", "sup", "strong", "u"}
    assert set(page.tags) <= allowed
    assert "<script>alert('x')</script>" in page.text
    assert "\x1b" not in page.text


def test_hostile_keys_stay_inside_their_attribute():
    grid = Grid("", (Column('"><img src=x onerror=alert(1)>', "t"),), ())
    page = Collector()
    page.feed(render_html(grid))
    assert "img" not in page.tags


def test_hostile_text_breaks_no_markdown_row(hostile):
    lines = render_table([hostile], "markdown", columns=["method", "semseg"]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 3
    for line in table:
        assert len(re.findall(r"(?<!\\)\|", line)) == 3
        assert "<script" not in line
        assert not re.search(r"(?<!\\)\]\(", line)


def test_hostile_text_breaks_no_csv_row(hostile):
    rows = list(csv.reader(io.StringIO(render_table([hostile], "csv"))))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert "\x1b" not in render_table([hostile], "csv")


def test_hostile_text_on_the_terminal(hostile):
    text = render_table([hostile])
    assert "\x1b" not in text
    assert "[c](d)" in text  # no console markup either


def test_latex_escapes():
    assert escape_latex("a_b & 50% {x} \\y $ # ~ ^") == (
        r"a\_b \& 50\% \{x\} \textbackslash{}y \$ \# \textasciitilde{} \textasciicircum{}"
    )
    assert escape_latex("[x] * é Δ 中") == r"{[}x{]} {*} é $\Delta$ ?"


def assert_latex_is_sound(text):
    """No command besides ours, balanced braces and environments, as many cells in every row as columns."""
    body = re.sub(r"\\[&%$#_{}]", "", text)
    assert body.count("{") == body.count("}")
    known = {
        "begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "cmidrule", "multicolumn",
        "textbf", "underline", "scriptsize", "footnotesize", "smallskip", "par", "textsuperscript", "pm",
        "uparrow", "downarrow", "Delta", "delta", "circ", "dagger", "ddagger", "textbackslash", "textbar",
        "textless", "textgreater", "textasciitilde", "textasciicircum", "textquotedbl",
    }  # fmt: skip
    assert set(re.findall(r"\\([A-Za-z]+)", body)) <= known
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text).group(1)
    for line in text.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]


def test_latex_is_sound(records, hostile):
    assert_latex_is_sound(render_table(records, "latex"))
    assert_latex_is_sound(render_table([hostile], "latex"))


@pytest.mark.slow
def test_latex_compiles(records, hostile, tmp_path):
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed; test_latex_is_sound checks the structure")
    tables = "\n".join(render_table(runs, "latex") for runs in (records, [hostile]))
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{booktabs}"
    (tmp_path / "t.tex").write_text(head + r"\begin{document}" + tables + r"\end{document}", encoding="utf-8")
    command = [program, "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


def test_latex_and_markdown_hold_the_same_numbers(records):
    def numbers(text):
        return re.findall(r"-?\d+\.\d+", text.replace(r"$\pm$", " "))

    grid = build_grid(records)
    assert numbers(render_latex(grid)) == numbers(render_markdown(grid))


def test_every_format_of_every_table_is_text(records):
    for name in FORMATS:
        assert render_table(records, name).strip()
