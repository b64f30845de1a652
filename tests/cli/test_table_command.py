"""`mtvision table`: what goes into a paper, and tables in documents that nobody can edit unnoticed."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import make_record

from mtvision.cli.main import call
from mtvision.protocols import get_protocol
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.marked import regenerate

ROOT = Path(__file__).parents[2]


def nyud(method="InvPT", backbone="vit_large_patch16_384", seed=0, shift=0.0, **changes):
    scores = {
        "semseg": {"miou": 0.5356 + shift}, "depth": {"rmse": 0.52 - shift}, "normals": {"mean": 19.04},
        "edge": {"odsF": 0.781 + shift},
    }  # fmt: skip
    tasks = describe_tasks(get_protocol("nyud-invpt").tasks)
    values = {"protocol": "nyud-invpt", "protocol_title": "NYUD-v2", "tasks": tasks, "scores": scores}
    return make_record(method=method, backbone=backbone, seed=seed, **{**values, **changes})


@pytest.fixture
def results(tmp_path):
    """Three seeds of one row, one of another, and one record of another protocol."""
    folder = tmp_path / "results"
    for seed in range(3):
        nyud(seed=seed, shift=0.004 * (seed - 1)).save(folder / f"invpt_seed{seed}.json")
    nyud("Mine", seed=0, shift=0.02, row="mine").save(folder / "mine.json")
    make_record().save(folder / "other.json")
    return folder


def table(capsys, *arguments):
    code = call("table", [str(item) for item in arguments])
    out = capsys.readouterr()
    assert code == 0, out.err
    return out.out


def test_one_protocol_at_a_time(results, capsys):
    assert call("table", [str(results)]) == 2
    assert "records of 2 protocols cannot share a table: nyud-invpt (4)" in capsys.readouterr().err
    text = table(capsys, results, "--protocol", "nyud-invpt")
    assert "53.56 ± 0.40" in text
    assert "ParallelDecoder" not in text
    assert call("table", [str(results), "--protocol", "nyud-invtp"]) == 2
    assert "nyud-invpt" in capsys.readouterr().err


def test_evaluators_are_not_mixed(results, capsys):
    other = [{**entry, "evaluator": "my own tool"} for entry in nyud().tasks]
    nyud("Other", row="o", tasks=other).save(results / "o.json")
    arguments = [str(results), "--protocol", "nyud-invpt"]
    assert call("table", arguments) == 2
    assert "scores of 2 evaluators do not compare" in capsys.readouterr().err
    assert (
        call("table", [*arguments, "--published"]) == 2
    )  # published rows are marked, our own mixture is not
    capsys.readouterr()
    assert "† another evaluator: my own tool." in table(capsys, *arguments, "--mixed", "mark")


def test_rows_can_be_chosen_and_sorted(results, capsys):
    text = table(
        capsys, results, "--method", "Mine", "InvPT", "--sort", "semseg", "--columns", "method", "semseg"
    )
    assert re.findall(r"(?m)^ (Mine|InvPT) +(\S+)", text) == [("Mine", "55.56"), ("InvPT", "53.56")]
    assert call("table", [str(results), "--method", "Mien"]) == 2
    assert "Mine" in capsys.readouterr().err


def test_published_beside_reproduced(results, capsys):
    text = table(
        capsys,
        results,
        "--protocol",
        "nyud-invpt",
        "--method",
        "InvPT",
        "--published",
        "--format",
        "markdown",
    )
    assert re.search(r"\| InvPT \| ViT-L \| .*53\.56", text)  # the published row stands in the table
    line = next(line for line in text.splitlines() if line.startswith("| InvPT | ViT-L | semseg mIoU"))
    assert line == (
        "| InvPT | ViT-L | semseg mIoU | 53.56 | 53.56 ± 0.40 | 3 | +0.00 | within seed noise | stated |"
    )
    normals = next(line for line in text.splitlines() if line.startswith("| InvPT | ViT-L | normals mean"))
    assert "within seed noise" in normals
    with_one = table(
        capsys, results, "--protocol", "nyud-invpt", "--method", "Mine", "--published", "--format", "markdown"
    )
    assert "nothing published has the method and backbone of Mine / vit" in with_one


def test_a_value_that_seeds_do_not_explain_is_outside(tmp_path, capsys):
    for seed in range(3):
        nyud(seed=seed, shift=0.03 + 0.001 * seed).save(tmp_path / f"{seed}.json")
    text = table(capsys, tmp_path, "--published", "--format", "csv")
    rows = list(csv.reader(io.StringIO(text.split("\n\n")[1])))
    found = {(row[1], row[2], row[3]): row for row in rows}
    assert "outside seed noise" in found["InvPT", "ViT-L", "semseg mIoU"]


def balanced(text):
    """Names of the environments and the depth of braces, both as a strict parser sees them."""
    stack, depth = [], 0
    for found in re.finditer(r"\\(begin|end)\{(\w+\*?)\}|\\[\\{}&%$#_]|([{}])", text):
        kind, name, brace = found.groups()
        if kind == "begin":
            stack.append(name)
        elif kind == "end":
            assert stack.pop() == name
        elif brace:
            depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert stack == []
    assert depth == 0


def test_latex_parses_and_holds_the_values_of_markdown(results, capsys):
    arguments = (results, "--protocol", "nyud-invpt", "--published", "--against", "InvPT")
    latex = table(capsys, *arguments, "--format", "latex")
    markdown = table(capsys, *arguments, "--format", "markdown")
    balanced(latex)

    def numbers(text):
        text = re.sub(r"\\cmidrule\S+|\\textsuperscript\{[^}]*\}", "", text).replace(r"$\pm$", " ± ")
        return re.findall(r"\d+\.\d+", text.replace("$", ""))

    tables = latex.split(r"\begin{table}")[1:]
    assert len(tables) == 3
    assert numbers(latex) == numbers(markdown)
    walker = pytest.importorskip("pylatexenc.latexwalker")
    nodes, _, _ = walker.LatexWalker(latex, tolerant_parsing=False).get_latex_nodes()
    names = [node.environmentname for node in nodes if hasattr(node, "environmentname")]
    assert names == ["table"] * 3


def test_csv_has_all_digits_of_the_records(results, capsys):
    text = table(capsys, results, "--protocol", "nyud-invpt", "--method", "Mine", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["semseg/miou"]) == nyud(shift=0.02).scores["semseg"]["miou"]


def test_gain_over_single_task_records(results, capsys):
    tasks = {entry["name"]: entry for entry in nyud().tasks}
    for name, entry in tasks.items():
        scores = {name: {entry["headline"]: nyud().scores[name][entry["headline"]] * 0.5}}
        nyud(f"only {name}", tasks=[entry], scores=scores, row=name).save(results / f"single_{name}.json")
    text = table(capsys, results, "--protocol", "nyud-invpt", "--baseline", "single-task", "--format", "csv")
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(text))}
    assert rows.keys() == {"single-task (4 networks)", "InvPT", "Mine"}
    assert float(rows["InvPT"]["gain"]) == pytest.approx((100 - 100 - 100 + 100) / 4, abs=1e-9)
    assert float(rows["single-task (4 networks)"]["parameters"]) == 4 * 1_234_567
    low = nyud("only semseg", tasks=[tasks["semseg"]], scores={"semseg": {"miou": 0.001}}, row="semseg")
    low.save(results / "single_semseg.json")
    options = ["--protocol", "nyud-invpt", "--baseline", "single-task", "--sort", "gain"]
    assert call("table", [str(results), *options]) == 0  # no row has a gain: nothing to sort by, and no error
    printed = capsys.readouterr()
    assert "near 0 that a ratio to it says nothing" in printed.err
    assert printed.out.index("InvPT") < printed.out.index("Mine")


DOCUMENT = """\
# Title

<!-- table: results --protocol nyud-invpt --columns method semseg --title '' -->
old
<!-- end -->

After.
"""


def test_documents_are_regenerated_and_a_hand_edited_number_fails(results, tmp_path, capsys):
    document = tmp_path / "README.md"
    document.write_text(DOCUMENT)
    assert call("table", ["--check", str(document)]) == 1
    capsys.readouterr()
    assert "1 tables, regenerated" in table(capsys, "--write", document)
    text = document.read_text()
    assert "| InvPT | 53.56 ± 0.40 |" in text
    assert text.startswith("# Title\n\n<!-- table: results")
    assert text.endswith("<!-- end -->\n\nAfter.\n")
    assert "current" in table(capsys, "--check", document)
    document.write_text(text.replace("53.56", "53.65"))
    assert call("table", ["--check", str(document)]) == 1
    out = capsys.readouterr()
    assert "-| InvPT | 53.65 ± 0.40 |" in out.out
    assert "+| InvPT | 53.56 ± 0.40 |" in out.out
    assert "tables differ from the records" in out.err
    assert document.read_text() == text.replace("53.56", "53.65")  # a check writes nothing


@pytest.mark.parametrize("text", [DOCUMENT.replace("<!-- end -->", ""), DOCUMENT.replace("old", DOCUMENT)])
def test_a_marker_without_its_end_is_refused(text):
    with pytest.raises(ValueError, match="has no '<!-- end -->' of its own"):
        regenerate(text, lambda words: "", source="a.md")


def test_tables_of_this_repository_are_those_of_its_records(capsys):
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    code = call("table", ["--check", *map(str, documents)])
    assert code == 0, capsys.readouterr().out
    assert "<!-- table: results/" in documents[0].read_text()


def test_nothing_to_tabulate(tmp_path, capsys):
    assert call("table", [str(tmp_path)]) == 2
    assert "no records to tabulate" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("table", [])
    replace(make_record(), method="A").save(tmp_path / "a.json")
    assert call("table", [str(tmp_path), "--format", "word"]) == 2
    assert "Unknown table format 'word'" in capsys.readouterr().err
    out = tmp_path / "deep" / "t.tex"
    assert table(capsys, tmp_path, "--format", "latex", "--out", out) == ""
    assert out.read_text().startswith(r"\begin{table}")
