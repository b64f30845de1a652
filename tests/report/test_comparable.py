"""Two records that differ in one field that changes numbers are kept apart by every output."""

import csv
import io
import json
from dataclasses import replace

import pytest
from report_records import DIGEST, SHA, TASKS, make_record, scored

from mtvision.cli.main import call
from mtvision.protocols import digest, own_protocol
from mtvision.report.baseline import fold_single_task, with_gain
from mtvision.report.comparable.key import conflicts, facts, group_records, key_digest
from mtvision.report.compare import OTHER_TOOL, compare
from mtvision.report.leaderboard import build_page, check_records
from mtvision.report.leaderboard.rows import build_sections
from mtvision.report.paired import BEST, paired_differences, paired_grids
from mtvision.report.published import published_rows
from mtvision.report.render import FORMATS
from mtvision.report.table import build_grid, group_seeds, render_table
from mtvision.sweep.summary import summary
from mtvision.tracking.push import table_rows

OTHER = "f" * 64
FURTHER = [TASKS[0], {**TASKS[1], "further_metrics": [{"metric": "bias", "metric_options": {"nearest": 1}}]}]
OTHERS = [TASKS[0], {**TASKS[1], "further_metrics": [{"metric": "bias", "metric_options": {"nearest": 2}}]}]
THREE_CLASSES = [{**TASKS[0], "metric_options": {**TASKS[0]["metric_options"], "num_classes": 3}}, TASKS[1]]
REPLACED = [{"table": "metric", "name": "iou", "by": "mine.metrics.IoU"}]


def digest_of(names, version=1):
    before, digest.EVALUATOR_VERSION = digest.EVALUATOR_VERSION, version
    try:
        return own_protocol("discs", {"semseg": {"class_names": names}, "depth": {}}).digest()
    finally:
        digest.EVALUATOR_VERSION = before


CASES = {  # what differs: (changes of the second record, field that must be named)
    "class order": ({"protocol_digest": digest_of(["b", "a"])}, "protocol digest"),
    "one class more": (
        {"protocol_digest": digest_of(["a", "b", "c"]), "tasks": THREE_CLASSES},
        "protocol digest",
    ),
    "evaluator version": ({"protocol_digest": digest_of(["a", "b"], version=2)}, "protocol digest"),
    "unknown digest": ({"protocol_digest": None}, "protocol digest"),
    "one class more, digest unknown": ({"tasks": THREE_CLASSES}, "semseg: metric_options (protocol)"),
    "number of images": ({"scored": scored(100)}, "test images"),
    "other images": ({"scored": scored(60, fingerprint=OTHER)}, "test fingerprint"),
    "other labels": ({"scored": scored(60, labels=OTHER)}, "semseg: fingerprint of the labels"),
    "smoke": ({"provenance": "smoke"}, "provenance"),
    "replaced metric": ({"replaced": REPLACED}, "semseg: replaced metric"),
    "replaced data set": (
        {"replaced": [{"table": "dataset", "name": "NYUDv2", "by": "mine.NYUDv2"}]},
        "replaced",
    ),
}
BASE = {"protocol": "discs", "protocol_digest": digest_of(["a", "b"]), "scored": scored(60)}


def pair(case, **both):
    """Two methods, the second better in everything, scored differently."""
    changes, field = CASES[case]
    base = {**BASE, **({"protocol_digest": None} if "digest unknown" in case else {}), **both}
    one = make_record(0.5, 0.6, method="One", row="one", **base)
    other = make_record(0.6, 0.5, method="Two", row="two", **{**base, **changes})
    return one, other, field


def test_a_further_metric_counts_where_both_records_have_it():
    one, two = make_record(tasks=FURTHER, **BASE), make_record(tasks=OTHERS, **BASE)
    assert list(conflicts(one, two)) == ["depth: metric_options bias (protocol)"]
    assert conflicts(one, make_record(**BASE)) == {}
    replaced = [{"table": "metric", "name": "bias", "by": "mine.metrics.Bias"}]
    third = make_record(tasks=FURTHER, replaced=replaced, **BASE)
    assert list(conflicts(one, third)) == ["depth: replaced metric bias"]
    assert key_digest(one) != key_digest(third)
    assert key_digest(one) == key_digest(two)


every = pytest.mark.parametrize("case", CASES)


def test_records_that_differ_in_nothing_else_compare():
    one = make_record(0.5, 0.6, method="One", row="one", **BASE)
    two = make_record(0.6, 0.5, method="Two", row="two", **BASE)
    assert [group.label for group in group_records([one, two])] == [""]
    text = render_table([one, two], "markdown")
    assert "**60.00**" in text
    assert "do not compare" not in text
    assert paired_differences([one, two], "One")


@every
def test_the_one_rule_names_the_field(case):
    one, other, field = pair(case)
    assert field in conflicts(one, other)
    first, second = group_records([one, other])
    assert (first.records, second.records) == ((one,), (other,))
    assert field in first.label + second.label


@every
@pytest.mark.parametrize("format", FORMATS)
def test_tables_part_and_never_rank_across(case, format):  # noqa: A002
    one, other, field = pair(case)
    grid = build_grid([one, other])
    assert len(set(grid.groups)) == 2
    assert all(cell.rank == 0 for row in grid.rows for cell in row.cells)
    text = render_table([one, other], format)
    marks = {"markdown": ("**60.00**", "**0.5000**"), "latex": (r"\textbf{",), "html": ("<strong>", "best")}
    assert not any(mark in text for mark in marks.get(format, ()))
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len({row["group"] for row in rows}) == len(rows) == 2
        assert field in rows[0]["group"] + rows[1]["group"]
    else:
        plain = text.replace("\\", "")
        assert f"differ in: {field}" in plain or f"; {field} (" in plain
        assert plain.count(field) >= 2  # above a group, and in the line below the table


@every
def test_seeds_of_one_configuration_are_not_averaged(case):
    one, other, _ = pair(case)
    same = replace(other, method=one.method, config=one.config, seed=1)
    assert [len(row) for row in group_seeds([one, same])] == [1, 1]


@every
def test_the_page_parts_and_never_ranks_across(case):
    one, other, field = pair(case)
    (section,) = build_sections([one, other], certainties=())
    assert len(section.groups) == 2
    assert all(cell.rank == 0 for row in section.rows for cell in row.cells)
    text = build_page([one, other], certainties=())
    labels = [part.partition('"')[0] for part in text.split('data-group="')[1:]]
    assert len(set(labels)) == 2  # what the Pareto fronts go by
    assert text.count('class="label"') == 2
    assert field in "".join(labels)
    assert any(field in note for _, note in section.notes)


@every
def test_a_gain_is_not_taken_over_networks_that_were_scored_differently(case):
    one, other, field = pair(case)
    entry = next(item for item in other.tasks if item["name"] == "semseg")
    single = replace(other, method="single", tasks=[entry], scores={"semseg": {"miou": 0.4}})
    record = replace(one, tasks=[TASKS[0], TASKS[1]])
    with pytest.raises(ValueError, match="has no single-task network trained the same way") as caught:
        with_gain([record, single])
    assert field in str(caught.value)


@every
def test_paired_tests_stay_inside_a_group(case):
    one, other, field = pair(case)
    assert paired_differences([one, other], "One") == []
    with pytest.raises(ValueError, match="no row is the best of all") as caught:
        paired_differences([one, other], BEST)
    assert field in str(caught.value)
    assert all(not grid.rows for grid in paired_grids([one, other], BEST))


@every
def test_a_launch_summary_parts(case):
    one, other, field = pair(case)
    seeds = [replace(record, seed=seed) for seed in range(3) for record in (one, other)]
    text = summary(seeds)
    assert text.count(field) >= 2
    assert "Differences from" not in text
    assert "leads" not in text


@every
def test_pushed_tables_say_what_compares(case):
    one, other, _ = pair(case)
    columns, rows = table_rows([one, other, one])
    place = columns.index("comparable")
    assert rows[0][place] == rows[2][place] != rows[1][place]


@every
def test_the_check_names_each_case(case):
    one, other, field = pair(case)
    findings = [item for item in check_records({"a": one, "b": other}) if "does not compare" in item.problem]
    assert len(findings) == 1
    assert field in findings[0].problem
    assert findings[0].level == "note"


def test_the_constant_predictor_stands_in_the_group_of_its_images():
    one, other, _ = pair("number of images")
    constant = {"semseg": {"miou": 0.05}, "depth": {"rmse": 0.1}}
    grid = build_grid([replace(one, constant=constant), replace(other, constant=constant)])
    kinds = [(row.group, row.kind) for row in grid.rows]
    assert kinds == [(group, kind) for group in grid.groups for kind in ("constant", "result")]
    assert all(cell.rank == 0 for row in grid.rows for cell in row.cells)


def test_each_group_has_its_own_best():
    records = [
        make_record(value, method=f"{value}", row=f"{value}", **{**BASE, "scored": scored(images)})
        for images in (60, 100)
        for value in (0.1 + images / 1000, 0.2 + images / 1000)
    ]
    grid = build_grid(records, columns=["method", "semseg"])
    assert [row.cells[1].rank for row in grid.rows] == [0, 1, 0, 1]
    assert [row.group for row in grid.sorted_by("semseg").rows] == [row.group for row in grid.rows]


def test_a_replaced_metric_concerns_its_tasks_only():
    one, other, _ = pair("replaced metric")
    depth = [replace(item, tasks=[TASKS[1]], scores={"depth": {"rmse": 0.5}}) for item in (one, other)]
    assert conflicts(*depth) == {}


def test_single_task_rows_of_two_groups_are_not_joined():
    def singles(images):
        return [
            make_record(tasks=[entry], scores={entry["name"]: {entry["headline"]: 0.5}}, method=entry["name"],
                        row=entry["name"], **{**BASE, "scored": scored(images)})
            for entry in TASKS
        ]  # fmt: skip

    rows = fold_single_task([*singles(60), *singles(100)])
    assert [(row.task_names, row.scored["images"]) for row in rows] == [
        (("semseg", "depth"), 60), (("semseg", "depth"), 100)
    ]  # fmt: skip
    assert rows[0].scored["labels"] == scored(60)["labels"]


def version_1(**changes):
    """As a record of version 1 is after migration."""
    manifest = {"hash": SHA, "split": "test", "images": 60, "tasks": ["semseg", "depth"]}
    known = {"images": 60, "split": "test", "fingerprint": None, "labels": {}}
    return make_record(**{"data": {"train": None, "test": manifest}, "scored": known, **changes})


def test_records_of_version_1_are_grouped_by_what_they_hold():
    whole = version_1()
    other = version_1(data={"train": None, "test": {**whole.data["test"], "hash": OTHER}})
    assert "test fingerprint with labels of semseg, depth" in conflicts(whole, other)
    manifest = {**whole.data["test"], "hash": OTHER, "tasks": ["semseg"]}
    single = version_1(
        data={"train": None, "test": manifest}, tasks=[TASKS[0]], scores={"semseg": {"miou": 0.4}}
    )
    assert (
        conflicts(whole, single) == {}
    )  # its hash is of one task's labels and says nothing about the images
    assert len(group_records([single, other, whole, single])) == 2
    assert facts(whole)["protocol digest"] == "unknown"


def test_published_rows_do_not_compare_with_a_changed_protocol():
    rows = [row for row in published_rows("nyud-invpt") if (row.method, row.backbone) == ("InvPT", "ViT-L")]
    good = make_record(method="invpt", backbone="vit_large_patch16_384", protocol="nyud-invpt")
    verdicts = {item.verdict for item in compare([good], rows)}
    assert OTHER_TOOL not in verdicts
    part = {**scored(60), "split": "val"}
    for changes in ({"protocol_digest": DIGEST}, {"scored": part}, {"replaced": REPLACED}):
        changed = replace(good, **changes)
        assert {item.verdict for item in compare([changed], rows)} == {OTHER_TOOL}
        with pytest.raises(ValueError, match="was not scored as protocol nyud-invpt says"):
            with_gain([changed], "single-task ViT-B (PRISM, odsF by mtdp)")


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"protocol_digest": DIGEST}, "protocol_digest", f"found {DIGEST}, expected "),
        ({"scored": {**scored(60), "split": "val"}}, "scored.images", "found 60 (val), expected 654 (val)"),
        ({"replaced": REPLACED}, "replaced", "found metric iou by mine.metrics.IoU, expected nothing"),
    ],
)
def test_the_check_refuses_what_the_shipped_protocol_does_not_say(changes, field, words):
    record = make_record(protocol="nyud-invpt", **changes)
    found = {item.field: item for item in check_records({"a": record}) if item.level == "violation"}
    assert words in found[field].problem
    assert found[field].advice


def test_commands_end_with_parted_tables(tmp_path, capsys):
    one, other, _ = pair("number of images")
    one.save(tmp_path / "one.json")
    other.save(tmp_path / "two.json")
    assert call("table", [str(tmp_path), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "| *test images: 60 (part)* |" in out
    assert "| *test images: 100 (part)* |" in out
    assert call("leaderboard", ["check", str(tmp_path)]) == 1  # the protocol is not one of the suite's
    assert "test images: 100 (part) against 60 (part)" in capsys.readouterr().out
    assert json.loads((tmp_path / "one.json").read_text())["scored"]["images"] == 60
