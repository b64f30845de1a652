"""Records survive the trip to disk, and say what is wrong with them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from report_records import SHA, TASKS, make_gain, make_record

from mtvision.protocols import SYNTHETIC
from mtvision.protocols.tasks import edge, semseg
from mtvision.report import record as module
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.record import (
    Record,
    RecordError,
    find_records,
    migrate,
)
from mtvision.report.schema_check import record_schema, violations


def problems_of(record_or_data):
    data = record_or_data if isinstance(record_or_data, dict) else record_or_data.to_json()
    return violations(data)


def changed(path, value):
    """Plain data of a valid record with one value replaced."""
    data = make_record().to_json()
    *parents, last = path
    node = data
    for part in parents:
        node = node[part]
    node[last] = value
    return data


def test_the_schema_is_a_schema_and_describes_exactly_the_fields():
    Draft202012Validator.check_schema(record_schema())
    assert set(record_schema()["properties"]) == {"schema", *Record.__dataclass_fields__}


def test_round_trip_is_exact(tmp_path):
    record = make_record(1 / 3, 0.1 + 0.2, constant={"semseg": {"miou": 0.01}, "depth": {"rmse": 2.0}})
    path = record.save(tmp_path / "deep" / "record.json")
    assert Record.load(path) == record
    assert Record.load(path).scores["semseg"]["miou"] == 1 / 3  # all digits
    assert json.loads(path.read_text())["schema"] == 2


def test_nan_is_null_on_disk_and_nan_in_memory(tmp_path):
    path = make_record(rmse=math.nan).save(tmp_path / "record.json")
    assert json.loads(path.read_text())["scores"]["depth"]["rmse"] is None
    assert math.isnan(Record.load(path).scores["depth"]["rmse"])
    assert "NaN" not in path.read_text()


def test_infinity_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"scores.depth.rmse: found inf, expected a finite number"):
        make_record(rmse=math.inf).save(tmp_path / "record.json")
    assert not any(tmp_path.iterdir())


def test_numpy_numbers_and_tuples_become_json():
    record = make_record(
        np.float64(0.25), data={"test": {"hash": SHA, "split": "val", "images": np.int64(3)}}
    )
    assert json.loads(json.dumps(record.to_json()))["data"]["test"]["images"] == 3
    assert problems_of(record) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("scores", "semseg", "miou"),
            "high",
            'scores.semseg.miou: found "high" (string), expected number or null',
        ),
        (("provenance",), "mine", 'provenance: found "mine" (string), expected one of "paper", "released"'),
        (
            ("tasks", 0, "higher_is_better"),
            1,
            "tasks[0].higher_is_better: found 1 (number), expected boolean",
        ),
        (("seed",), -1, "seed: found -1 (number), expected at least 0"),
        (
            ("config", "sha256"),
            "123",
            'config.sha256: found "123" (string), expected text that matches ^[0-9a-f]{64}$',
        ),
        (("protocol",), "NYUD v2", 'protocol: found "NYUD v2" (string), expected text that matches'),
        (("methd",), "x", "methd: no such field; did you mean 'method'?"),
        (("created",), "yesterday", 'created: found "yesterday" (string), expected text that matches'),
        (("seed",), 2**32, "seed: found 4294967296 (number), expected at most 4294967295"),
        (("scores",), {}, "scores: found {} (object), expected at least 1 entry"),
        (
            ("cost", "parameters", "total"),
            2.5,
            "cost.parameters.total: found 2.5 (number), expected integer",
        ),
        (
            ("data", "test"),
            {"split": "val", "images": 1},
            "data.test.hash: missing.",
        ),
    ],
)
def test_violations_name_field_found_and_expected(path, value, message):
    found = violations(changed(path, value))
    assert any(problem.startswith(message) for problem in found), found


@pytest.mark.parametrize("field", ["method", "tasks", "config", "data", "versions", "seed", "code"])
def test_a_missing_field_is_named(field):
    data = make_record().to_json()
    del data[field]
    assert f"{field}: missing." in violations(data)


def test_rows_from_papers_need_less_than_runs():
    data = make_record(provenance="paper", source="a paper").to_json()
    for field in ("config", "code", "data", "seed", "world_size", "effective_batch", "precision", "versions"):
        data.pop(field)
    del data["cost"]
    assert violations(data) == []


def test_all_problems_are_reported_at_once(tmp_path):
    data = changed(("provenance",), "mine")
    data["seed"] = "zero"
    path = tmp_path / "record.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError, match="2 violations") as caught:
        Record.load(path)
    assert str(path) in str(caught.value)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("scores", "edge"), {"odsF": 0.5}, "scores.edge: no entry of tasks has this name"),
        (("scores", "semseg"), {"pixel_accuracy": 1}, "scores.semseg: no headline score 'miou'"),
        (("tasks",), [TASKS[0], TASKS[1], TASKS[0]], "tasks: a name occurs twice"),
        (("config", "text"), "seed = 1\n", "config.sha256: found"),
        (("command",), "mtvision train /a/b.py", "command: holds the absolute path '/a/b.py'"),
        (("created",), "2026-02-30T01:02:03Z", "created: found \"2026-02-30T01:02:03Z\" (string), which"),
        (("notes",), ["from ~/runs/a"], "notes[0]: holds the absolute path '~/runs/a'"),
    ],
)  # fmt: skip
def test_contradictions_are_found(path, value, message):
    found = violations(changed(path, value))
    assert any(problem.startswith(message) for problem in found), found


def test_a_score_edited_by_hand_contradicts_its_gain():
    record = make_record()
    data = make_record(gain=make_gain(record)).to_json()
    assert violations(data) == []
    data["scores"]["semseg"]["miou"] = 0.51
    assert any("gain.parts.semseg: found 2" in problem for problem in violations(data))
    data["scores"]["semseg"]["miou"] = 0.5
    data["gain"]["percent"] += 0.1
    assert any(problem.startswith("gain.percent: found 25.1") for problem in violations(data))


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = make_record().save(tmp_path / "record.json")
    before = path.read_bytes()

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        make_record(0.9).save(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


def test_an_invalid_record_never_replaces_a_valid_one(tmp_path):
    path = make_record().save(tmp_path / "record.json")
    with pytest.raises(RecordError, match="provenance"):
        make_record(provenance="mine").save(path)
    assert Record.load(path) == make_record()


def test_migration_runs_step_by_step(monkeypatch):
    monkeypatch.setattr(module, "SCHEMA_VERSION", 3)
    steps = {1: lambda d: {**d, "a": d["old"] + 1}, 2: lambda d: {**d, "b": d["a"] * 2}}
    monkeypatch.setattr(module, "MIGRATIONS", steps)
    old = {"schema": 1, "old": 1}
    assert migrate(old) == {"schema": 3, "old": 1, "a": 2, "b": 4}
    assert old == {"schema": 1, "old": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "found list, expected a JSON object"),
        ({}, "schema: found None, expected the version"),
        ({"schema": True}, "schema: found True"),
        ({"schema": 99}, "version 99 is newer than 2, .*; update mtvision"),
        ({"schema": 0}, "version 0 cannot be read; known are 1 to 2"),
    ],
)
def test_unreadable_versions(data, message):
    with pytest.raises(RecordError, match=message):
        migrate(data)


def test_not_json(tmp_path):
    (tmp_path / "record.json").write_text('{"schema": 1,')
    with pytest.raises(RecordError, match="not JSON"):
        Record.load(tmp_path / "record.json")


def test_find_records_in_folders(tmp_path):
    make_record(0.1).save(tmp_path / "a" / "record.json")
    make_record(0.2).save(tmp_path / "b.json")
    (tmp_path / "other.json").write_text('{"not": "a record"}')
    assert [record.scores["semseg"]["miou"] for record in find_records([tmp_path])] == [0.1, 0.2]
    (tmp_path / "c.json").write_text(json.dumps(changed(("seed",), "x")))
    with pytest.raises(RecordError, match=r'c.json: seed: found "x"'):
        find_records([tmp_path])
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        find_records([tmp_path / "nothing-here"])


@pytest.mark.parametrize("name", ["record.json", "row_seed0.json"])
@pytest.mark.parametrize("lost", [("scores",), ("schema",), ("schema", "created"), None])
def test_a_record_that_lost_a_part_is_not_passed_over(name, lost, tmp_path):
    """A table without the row would look whole."""
    make_record(0.1).save(tmp_path / "a" / "record.json")
    file = tmp_path / "b" / name
    make_record(0.2).save(file)
    data = {key: value for key, value in json.loads(file.read_text()).items() if key not in (lost or ())}
    file.write_text(json.dumps(data) if lost else json.dumps(data)[:-9])
    for others in (
        {"rule": "last", "scores": {}},
        {key: data[key] for key in ("protocol", "tasks", "method")},
    ):
        (tmp_path / "selection.json").write_text(json.dumps(others))
        with pytest.raises(RecordError, match=rf"^records: 1 violation:\n.*b/{name}: "):
            find_records([tmp_path])


def test_changed_metric_options_make_another_evaluator():
    tasks = (semseg(("a", "b")), edge(thresholds=99))
    assert [entry["evaluator"] for entry in describe_tasks(tasks)] == ["protocol", "protocol"]
    same = describe_tasks(tasks, {"edge": {"thresholds": 99}})
    assert same == describe_tasks(tasks)
    quick = describe_tasks(tasks, {"edge": {"thresholds": 9}})[1]
    assert quick["evaluator"] == "protocol with thresholds=9"
    assert quick["metric_options"]["thresholds"] == 9


def test_committed_records_describe_their_tasks_as_today():
    """Another form of an entry would part new results from old ones."""
    results = Path(__file__).parents[2] / "results" / "tiny_synthetic"
    known = {entry["name"]: entry for entry in describe_tasks(SYNTHETIC.tasks)}
    files = sorted(results.rglob("*.json"))
    entries = [entry for file in files for entry in json.loads(file.read_text()).get("tasks", ())]
    assert len(entries) > 100
    assert all(entry == known[entry["name"]] for entry in entries)


def test_further_metrics_and_directions_survive_and_are_checked():
    iou, depth = make_record().tasks
    more = {"further_metrics": [{"metric": "iou", "metric_options": {}}], "directions": {"bias": True}}
    scores = {**make_record().scores}
    scores["depth"] = {**scores["depth"], "bias": 3.0, "miou": 0.5}
    record = make_record(tasks=[iou, {**depth, **more}], scores=scores)
    assert Record.from_json(record.to_json()) == record
    scores["depth"]["miou"] = 2.0
    (problem,) = problems_of(make_record(tasks=[iou, {**depth, **more}], scores=scores))
    assert problem.startswith("scores.depth.miou: found 2.0, expected 0 to 1, the range of metric 'iou'")
    wrong = {**depth, "further_metrics": [{"metric": "bias"}]}
    assert any(
        "further_metrics[0].metric_options: missing" in text
        for text in problems_of(make_record(tasks=[iou, wrong]))
    )


def test_rows_differ_in_more_than_the_seed():
    one, two = make_record(seed=0), make_record(seed=1)
    assert one.config["sha256"] != two.config["sha256"]
    assert one.row_key == two.row_key
    assert one.row_key != make_record(row="another config").row_key
    assert one.row_key != make_record(provenance="smoke").row_key


def test_importing_the_report_needs_no_torch():
    code = "import sys, mtvision.report, mtvision.report.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def version_1():
    """A valid record as version 1 wrote it."""
    data = {**make_record().to_json(), "schema": 1}
    for name in ("protocol_digest", "scored", "replaced"):
        del data[name]
    return data


PLUGIN = {"name": "mylab.multitask", "version": None, "sha256": "a" * 64, "file": "mylab/multitask.py"}


def test_plugins_are_kept_as_they_are_and_checked(tmp_path):
    record = make_record(plugins=[PLUGIN])
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == record
    for change in ({"sha256": "abc"}, {"version": 3}, {"path": "x"}, {"file": "/home/me/mylab/multitask.py"}):
        with pytest.raises(RecordError, match="plugins"):
            make_record(plugins=[PLUGIN | change]).to_text()


def test_version_1_is_read_and_what_it_did_not_hold_is_unknown(tmp_path):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(version_1()))
    record = Record.load(file)
    assert record.protocol_digest is None
    assert record.scored == {"images": 8, "split": "val", "fingerprint": None, "labels": {}}
    assert record.replaced == []
    assert json.loads(record.save(file).read_text())["schema"] == 2
    assert Record.load(file) == record


def test_damaged_version_1_is_refused_in_words():
    with pytest.raises(RecordError, match=r"data: found \[\] \(array\)"):
        Record.from_json({**version_1(), "data": []})


@pytest.mark.parametrize("field", ["protocol_digest", "scored"])
def test_a_run_must_say_what_it_was_scored_on(field):
    data = make_record().to_json()
    del data[field]
    assert f"{field}: missing." in violations(data)
