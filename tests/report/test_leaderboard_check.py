"""`check_files` names every violation, where it is and what to try next."""

import json
import math
from dataclasses import replace

import pytest
from board_records import nyud_records
from report_records import make_record

from mtvision.report.leaderboard import check_files, check_records
from mtvision.report.provenance import config_entry


def found(records):
    return [(item.level, item.field) for item in check_records(records)]


def test_good_records_pass():
    records = {str(place): record for place, record in enumerate(nyud_records())}
    assert check_records(records) == []


def test_a_record_that_is_not_whole_gets_a_note():
    first, *others = nyud_records()
    records = dict(enumerate([replace(first, missing=["cost: RuntimeError: no kernel"]), *others]))
    assert found({str(place): record for place, record in records.items()}) == [("note", "missing")]


def test_seeds_of_a_row_with_different_files_of_a_plugin_get_a_note():
    plugin = {"name": "mylab", "version": "1.0", "sha256": "a" * 64, "file": "mylab.py"}
    first, *others = nyud_records()
    second = next(record for record in others if record.row_key == first.row_key)
    records = {"first": first, **{str(place): record for place, record in enumerate(others)}}
    name = next(name for name, record in records.items() if record is second)
    for digest, levels in (("a" * 64, []), ("b" * 64, [("note", "plugins")])):
        records["first"] = replace(first, plugins=[plugin], created="2026-01-01T00:00:00Z")
        records[name] = replace(second, plugins=[{**plugin, "sha256": digest}])
        assert found(records) == levels
    (note,) = check_records(records)
    assert note.file == name
    assert "plugin mylab differs from that of first" in note.problem


@pytest.mark.parametrize(
    ("change", "field", "words", "advice"),
    [
        (lambda data: data.pop("method"), "method", "missing", "docs/records.md"),
        (lambda data: data.update(provenance="mine"), "provenance", "expected one of", "correct the field"),
        (lambda data: data.update(sede=1), "sede", "did you mean 'seed'", "free text belongs in notes"),
        (lambda data: data["scores"]["semseg"].pop("miou"), "scores.semseg", "no headline", "mtvision test"),
        (lambda data: data["config"].update(text="seed = 1\n"), "config.sha256", "edited", "another run"),
        (lambda data: data["gain"].update(percent=99.0), "gain.percent", "expected", "never type a gain"),
        (lambda data: data["gain"]["parts"].update(depth=9.0), "gain.parts.depth", "baseline", "never type"),
        (lambda data: data.update(command="train /home/me/x.py"), "command", "/home/me/x.py", "relative"),
        (lambda data: data["scores"]["semseg"].update(miou=53.2), "scores.semseg.miou", "0 to 1", "per cent"),
        (lambda data: data["scores"]["semseg"].update(miou=math.nan), "scores.semseg.miou", "nan", "null"),
        (lambda data: data.update(schema=99), "schema", "newer", "update mtvision"),
    ],
)  # fmt: skip
def test_each_violation_is_explained(tmp_path, change, field, words, advice):
    data = nyud_records()[0].to_json()
    change(data)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(data))
    _, findings = check_files([tmp_path])
    texts = {item.field: item for item in findings if item.level == "violation"}
    assert field in texts
    assert words in texts[field].problem
    assert advice in texts[field].advice
    assert texts[field].file == str(file)


def test_a_damaged_file_is_reported_and_the_others_are_still_checked(tmp_path):
    nyud_records()[0].save(tmp_path / "good.json")
    (tmp_path / "record.json").write_text('{"schema": 1, ')
    (tmp_path / "other.json").write_text('{"unrelated": true}')
    files, findings = check_files([tmp_path])
    assert [file.name for file in files] == ["good.json", "record.json"]
    assert [item.file for item in findings] == [str(tmp_path / "record.json")]
    assert "copy record.json" in findings[0].advice


def test_the_same_config_and_seed_twice():
    old = nyud_records()[0]
    new = replace(old, created="2027-01-01T00:00:00Z")
    (finding,) = check_records({"old": old, "new": new})
    assert (finding.file, finding.field) == ("old", "config.row_sha256, seed")
    assert "is also in new" in finding.problem
    assert "keep one" in finding.advice
    assert check_records({"a": old, "b": nyud_records()[1]}) == []  # another seed


def test_an_unknown_protocol_unless_the_config_defines_it():
    one = make_record(protocol="nyud-invtp", tasks=nyud_records()[0].tasks, scores=nyud_records()[0].scores)
    problems = [item for item in check_records({"a": one}) if item.field == "protocol"]
    assert "did you mean 'nyud-invpt'?" in problems[0].advice
    text = "protocol = dict(id='my-data', tasks=dict(semseg=dict(class_names=['a', 'b'])))\nseed = 0\n"
    own = make_record(protocol="my-data", config=config_entry("own", text))
    assert ("violation", "protocol") not in found({"a": own})
    other = make_record(protocol="my-data", config=config_entry("own", text.replace("my-data", "else")))
    assert ("violation", "protocol") in found({"a": other})


def test_tasks_must_be_those_of_the_protocol():
    good = nyud_records()[0]
    tasks = [{**entry, "headline": "median"} if entry["name"] == "normals" else entry for entry in good.tasks]
    wrong = replace(good, tasks=tasks, gain=None)
    assert ("violation", "tasks[2].headline") in found({"a": wrong})
    options = [{**entry, "metric_options": {"thresholds": 9}} for entry in good.tasks]
    assert ("violation", "tasks[3].metric_options") in found({"a": replace(good, tasks=options)})
    named = [{**entry, "evaluator": "my own"} for entry in options]
    assert found({"a": replace(good, tasks=named)}) == []
    foreign = replace(good, protocol="mtan-nyuv2", gain=None)
    assert any(field.startswith("tasks[") or field == "protocol" for _, field in found({"a": foreign}))


def test_a_multi_task_result_needs_a_baseline():
    record = replace(nyud_records()[0], gain=None)
    (finding,) = check_records({"a": record})
    assert (finding.level, finding.field) == ("violation", "gain")
    assert finding.problem.startswith("baseline missing")
    assert "tasks=['…']" in finding.advice
    assert "single-task ViT-B (PRISM" in finding.advice  # the protocol's own, as another way out
    assert found({"a": replace(record, provenance="smoke")}) == [("note", "gain")]
    singles = {
        name: replace(
            record, tasks=[entry], scores={name: record.scores[name]}, config=config_entry(name, name)
        )
        for entry in record.tasks
        for name in [entry["name"]]
    }
    assert found({"a": record, **singles}) == []  # a table can compute it from these
    low = {**singles, "semseg": replace(singles["semseg"], scores={"semseg": {"miou": 0.004}})}
    (finding,) = check_records({"a": record, **low})
    assert (finding.level, finding.field) == ("note", "gain")
    assert "so near 0 that a ratio to it says nothing" in finding.problem


def test_a_protocols_baseline_must_have_the_protocols_values():
    record = nyud_records()[0]
    gain = json.loads(json.dumps(record.gain))
    gain["baseline"]["name"] = "single-task ViT-B (PRISM, odsF by mtdp)"
    fields = [field for _, field in found({"a": replace(record, gain=gain)})]
    assert fields[0] == "gain.baseline.scores.semseg"


def test_where_a_number_comes_from():
    record = nyud_records()[0]
    assert ("violation", "source") in found({"a": replace(record, provenance="paper", source=" ")})
    assert ("violation", "config") in found({"a": replace(record, config=None)})
    assert ("note", "code.dirty") in found({"a": replace(record, code={"commit": "a" * 40, "dirty": True})})


def test_nothing_to_check(tmp_path):
    with pytest.raises(ValueError, match="no records to check"):
        check_files([tmp_path])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_files([tmp_path / "none"])
