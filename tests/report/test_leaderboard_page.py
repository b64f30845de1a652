"""The page holds the records' numbers and nothing that a record could smuggle in."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from statistics import stdev

import pytest
from board_records import HOSTILE, board_records, hostile_record, nyud_records, write_site
from report_records import make_gain, make_record

from mtvision.report.leaderboard import RunFolders, build_page, write_page
from mtvision.report.leaderboard.rows import build_sections
from mtvision.report.leaderboard.runs import read_curves
from mtvision.report.paired import paired_differences
from mtvision.report.provenance import config_entry
from mtvision.report.published import published_rows
from mtvision.report.table import MixedRecordsError


class Page(HTMLParser):
    """Tags, text cells by row, and the embedded data of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.rows, self.data = [], [], {}, ""
        self.row = self.cell = None
        self.in_data = False
        self.feed(text)
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "tr":
            self.row = self.rows.setdefault(values["data-row"], []) if "data-row" in values else None
        elif tag in ("td", "th") and self.row is not None:
            self.row.append({**values, "text": ""})
        self.in_data = tag == "script" and values.get("id") == "data"

    def handle_data(self, data):
        if self.in_data:
            self.data += data
        elif self.row:
            self.row[-1]["text"] += data

    def handle_endtag(self, tag):
        self.in_data = False
        if tag == "tr":
            self.row = None


@pytest.fixture(scope="module")
def text():
    return build_page(board_records())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_is_the_same_every_time(text):
    assert build_page(board_records()) == text


@pytest.mark.fault("a page of the suite is opened", expected="it requests nothing from anywhere")
def test_nothing_is_loaded_from_elsewhere(text, page):
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert set(links) == {"#main", "data:,"}
    assert re.findall(r"url\(|@import|fetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|eval\(", text) == []
    (policy,) = [value for name, value in page.attributes if name == "content" and "-src" in value]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]


def test_one_table_per_protocol(page):
    assert page.tags.count("table") == 3
    assert len(board_records()) >= 30
    sections = build_sections(board_records())
    assert [section.protocol for section in sections] == ["synthetic-scenes", "nyud-invpt", "my-data"]
    for section in sections:
        assert {row.records[0].protocol for row in section.rows} == {section.protocol}
    keys = [column.key for column in sections[1].columns]
    assert keys == [
        "method", "backbone", "provenance", "licence", "semseg/miou", "depth/rmse", "normals/mean",
        "edge/odsF", "gain", "parameters", "macs", "latency", "seeds",
    ]  # fmt: skip


def test_numbers_are_those_of_the_records(page):
    records = [record for record in nyud_records() if record.method == "MTMamba"]
    (row,) = [
        cells
        for cells in page.rows.values()
        if cells[1]["text"].strip() == "MTMamba" and cells[3]["text"].strip() == "ours"
    ]
    values = [record.scores["semseg"]["miou"] for record in records]
    mean = sum(values) / 3
    assert float(row[5]["data-value"]) == pytest.approx(mean, rel=1e-14)
    assert float(row[5]["data-std"]) == pytest.approx(stdev(values), rel=1e-14)
    assert row[5]["text"].split()[0] == f"{100 * mean:.2f}"
    details = [
        item
        for item in page.data["rows"].values()
        if item["method"] == "MTMamba" and item["kind"] == "result"
    ]
    assert [score["values"] for score in details[0]["scores"] if score["score"] == "miou"] == [values]
    assert [run["percent"] for run in details[0]["seeds"]] == [record.gain["percent"] for record in records]
    assert details[0]["config"]["text"] == records[0].config["text"].strip()


def test_published_rows_say_where_and_how_sure(page):
    kinds = {}
    for cells in page.rows.values():
        kinds.setdefault(cells[3]["text"].strip(), []).append(cells)
    unsure = [row for row in published_rows("nyud-invpt") if row.certainty != "stated"]
    badges = [name for name in kinds if "paper" in name and name != "paper"]
    assert sum(len(kinds[name]) for name in badges) == len(unsure) > 0
    assert {name.removeprefix("paper").strip() for name in badges} <= {
        "from memory, unverified", "second-hand", "inferred",
    }  # fmt: skip
    nyud = build_sections(board_records())[1]
    assert all(cell.rank == 0 for row in nyud.rows if not row.verified for cell in row.cells)
    assert "paper" not in {
        row.records[0].provenance for row in build_sections(board_records(), certainties=())[1].rows
    }


def test_other_evaluators_are_marked_and_not_ranked():
    tasks = [{**entry, "evaluator": "my own tool"} for entry in nyud_records()[0].tasks]
    scores = {**nyud_records()[0].scores, "edge": {"odsF": 0.99}}
    other = replace(nyud_records()[0], method="Other", tasks=tasks, scores=scores, gain=None)
    section = build_sections([*nyud_records(), other], certainties=())[0]
    place = [column.key for column in section.columns].index("edge/odsF")
    cells = {row.method: row.cells[place] for row in section.rows}
    assert cells["Other"].mark
    assert cells["Other"].rank == 0
    assert max(cells.values(), key=lambda cell: cell.value) == cells["Other"]
    assert (cells["Other"].mark, "another evaluator: my own tool.") in section.notes


def test_smoke_runs_are_ranked_among_themselves_only():
    good, other = make_record(0.5, method="A", row="a"), make_record(0.4, method="B", row="b")
    smoke = make_record(0.9, method="S", row="s", provenance="smoke")
    section = build_sections([good, other, smoke], certainties=())[0]
    place = [column.key for column in section.columns].index("semseg/miou")
    assert {row.method: row.cells[place].rank for row in section.rows} == {"A": 1, "B": 0, "S": 0}


def test_latency_of_two_devices_shares_no_column():
    records = nyud_records()[:6]
    cost = json.loads(json.dumps(records[0].cost))
    cost["latency"]["device"] = "another device"
    mixed = [*records[:3], *(replace(record, cost=cost) for record in records[3:])]
    assert "latency" not in [column.key for column in build_sections(mixed)[0].columns]
    assert "latency" in [column.key for column in build_sections(records)[0].columns]


def test_gains_of_two_conventions_are_refused():
    one = make_record(method="A", row="a")
    other = replace(make_record(method="B", row="b"), gain={**make_gain(one), "convention": "tasks"})
    with pytest.raises(MixedRecordsError, match="conventions"):
        build_page([replace(one, gain=make_gain(one)), other])


def test_hostile_texts_stay_texts():
    record = hostile_record()
    clean = build_page(
        [make_record(protocol="own-data", constant={"semseg": {"miou": 0.1}}, gain=make_gain(record))]
    )
    text = build_page([record], title=HOSTILE)
    page = Page(text)
    assert page.tags.count("script") == 2
    assert page.tags.count("img") == 0
    assert set(page.tags) == set(Page(clean).tags) | {"sup", "abbr"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "49" not in page.rows["s0r0"][1]["text"]  # no template inside a template
    (detail,) = page.data["rows"].values()
    assert "<script>alert(1)</script>" in detail["method"]  # shown as it was written
    for mark in ("\u2028", "\u202e", "\x1b", "<!--\\u"):
        assert mark not in text
    body = text.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in body


def test_curves_are_means_of_equal_parts(tmp_path):
    file = tmp_path / "losses.jsonl"
    file.write_text("".join(json.dumps({"iter": i + 1, "total": float(i)}) + "\n" for i in range(8)))
    curves = read_curves(file, points=4)
    assert curves == {"iterations": [2, 4, 6, 8], "series": {"total": [0.5, 2.5, 4.5, 6.5]}}
    file.write_text('{"iter": 1, "total": NaN, "loss/a": 1}\n{"iter": 2, "total": Infinity, "loss/a": 3}\n')
    assert read_curves(file, points=1)["series"] == {"total": [None], "loss/a": [2.0]}
    file.write_text('{"iter": 1')
    with pytest.raises(ValueError, match="line 1: not JSON"):
        read_curves(file)
    for line in ("3", '{"loss": 1}', '{"iter": "4"}'):
        file.write_text(line)
        with pytest.raises(ValueError, match="line 1: expected an object with 'iter'"):
            read_curves(file)
    assert read_curves(tmp_path / "none") is None


def test_runs_are_found_by_config_and_seed(tmp_path):
    _, folders = write_site(tmp_path)
    records = board_records()
    runs = RunFolders(folders, pictures=1)
    assert runs.folder(records[0]) == tmp_path / "runs" / "run0"
    assert runs.folder(records[1]) is None  # another seed
    assert list(runs.files(records[0]).pictures) == ["image-0"]
    data = Page(build_page(records, runs=runs)).data
    with_curves = [item for item in data["rows"].values() if any(run["curves"] for run in item["seeds"])]
    assert {item["method"] for item in with_curves} == {"MTMamba", "InvPT"}
    assert len(data["pictures"]) == 2
    assert all(uri.startswith("data:image/webp;base64,") for uri in data["pictures"])
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        RunFolders([tmp_path / "none"])


def test_gains_over_single_task_records():
    record = replace(nyud_records()[0], gain=None)
    singles = [
        replace(record, tasks=[entry], method=f"only {name}", config=config_entry(name, name),
                scores={name: {entry["headline"]: 2 * record.scores[name][entry["headline"]]}})
        for entry in record.tasks
        for name in [entry["name"]]
    ]  # fmt: skip
    section = build_sections([record, *singles], certainties=(), baseline="single-task")[0]
    place = [column.key for column in section.columns].index("gain")
    cells = {row.method: row.cells[place].value for row in section.rows}
    assert cells == {"InvPT": pytest.approx(0.0, abs=1e-12), "single-task (4 networks)": None}
    alone = build_sections([record], certainties=(), baseline="single-task")[0]
    assert any("Gain over single-task not computed" in text for _, text in alone.notes)


def test_writing_and_nothing_to_write(tmp_path, text):
    assert write_page(tmp_path / "a" / "b", text).read_text(encoding="utf-8") == text
    with pytest.raises(ValueError, match="no records to show"):
        build_page([])
    assert "nyud-invpt" in {section.protocol for section in build_sections([], every_protocol=True)}


def test_importing_it_does_not_import_torch():
    code = "import sys, mtvision.report.leaderboard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rows_of_two_groups_cannot_be_compared_on_the_page():
    good, smoke = make_record(), make_record(provenance="smoke", row="s", method="S")
    page = Page(build_page([good, smoke], certainties=()))
    assert {item["group"] for item in page.data["rows"].values()} == {"provenance: ours", "provenance: smoke"}
    assert "left.group !== right.group" in build_page([good])
    (one, _) = page.data["rows"].values()
    assert ["Test images", "8 (part)"] in one["training"]


def seeds(method, values, backbone="resnet18"):
    """A row of three or more seeds that differs from others in its scores alone."""
    return [
        make_record(value, seed=seed, method=method, row=method, backbone=backbone)
        for seed, value in enumerate(values)
    ]


def test_rows_that_no_test_tells_apart_from_the_best_are_level():
    noise = [0.001, -0.001, 0.0005, 0.0]
    records = [
        *seeds("best", [0.50 + item for item in noise]),
        *seeds("close", [0.499 - item for item in noise]),
        *seeds("far", [0.30 + 1.1 * item for item in noise]),
        *seeds("two seeds", [0.499, 0.5]),
    ]
    section = build_sections(records, certainties=())[0]
    place = [column.key for column in section.columns].index("semseg/miou")
    p = paired_differences(records, "best")
    close = next(item.p_holm for item in p if item.method == "close" and item.task == "semseg")
    level = {row.method: row.level.get("semseg", "no") for row in section.rows}
    assert level == {"best": None, "close": close, "far": "no", "two seeds": "no"}
    assert close > 0.05
    assert any(
        "semseg mIoU: no significant difference from best in 1 of 2" in text for _, text in section.notes
    )
    cells = {
        cells[1]["text"].strip(): cells[place + 1]["text"]
        for cells in Page(build_page(records)).rows.values()
    }
    assert {name: "≈" in text for name, text in cells.items()} == {
        "best": True, "close": True, "far": False, "two seeds": False
    }  # fmt: skip


def test_a_licence_is_that_of_the_weights_or_of_what_they_started_from():
    one = make_record(method="own", row="a")
    kept = replace(one, checkpoint={"sha256": "a" * 64, "licence": "CC-BY-4.0"})
    started = replace(make_record(method="started", row="b"), training={"pretrained": {"licence": "mit"}})
    section = build_sections([kept, started, make_record(method="silent", row="c")], certainties=())[0]
    place = [column.key for column in section.columns].index("licence")
    texts = {row.method: row.cells[place].text for row in section.rows}
    assert texts == {"own": "CC-BY-4.0", "started": "mit", "silent": ""}
    published = {
        row.method: row.licence for row in build_sections(nyud_records())[0].rows if row.kind == "published"
    }
    assert (published["PRISM"], published["M2H"], published["ATRC"]) == ("MIT", "none given", "")
    silent = build_sections([one], certainties=())[0]
    assert "licence" not in [column.key for column in silent.columns]


def test_published_and_own_rows_of_a_backbone_share_a_colour():
    rows = build_sections(nyud_records())[0].rows
    colours = {}
    for row in rows:
        colours.setdefault(row.family, set()).add(row.colour)
    assert {"ViT-L", "Swin-L", "Swin-T"} <= colours.keys()
    assert all(len(found) == 1 for found in colours.values())
    drawn = [colours[name] for name in ("ViT-L", "Swin-L", "Swin-T")]
    assert len(set.union(*drawn)) == 3
    assert {row.colour for row in rows} == set(range(8))


def test_a_page_of_someone_else_is_kept(tmp_path):
    text = build_page(board_records())
    for _ in range(2):
        write_page(tmp_path, text)
    (tmp_path / "index.html").write_text("<title>My lab</title>")
    with pytest.raises(FileExistsError, match="is no page of `mtvision leaderboard` and is kept"):
        write_page(tmp_path, text)
    assert (tmp_path / "index.html").read_text() == "<title>My lab</title>"
