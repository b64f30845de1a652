"""Values that no metric can give are neither written nor read, and the message says which range it is."""

import json

import pytest
from report_records import make_gain, make_record

from mtvision.core.registry import METRICS
from mtvision.protocols import PROTOCOLS
from mtvision.report.comparable.ranges import range_errors, range_of
from mtvision.report.display import SCORES
from mtvision.report.record import Record, RecordError


def edited(path, value):
    data = make_record(gain=make_gain(make_record()), constant=make_record().scores).to_json()
    *parents, last = path
    node = data
    for part in parents:
        node = node[part]
    node[last] = value
    return data


MIOU = "scores.semseg.miou: found"
BAD = [
    (("scores", "semseg", "miou"), -5.0, f"{MIOU} -5.0, expected 0 to 1, the range of metric 'iou'."),
    (("scores", "semseg", "miou"), 1e9, f"{MIOU} 1000000000.0, expected 0 to 1"),
    (("scores", "semseg", "pixel_accuracy"), 1.0001, "scores.semseg.pixel_accuracy: found 1.0001"),
    (("scores", "semseg", "iou_1"), 2.0, "scores.semseg.iou_1: found 2.0, expected 0 to 1"),
    (("scores", "depth", "rmse"), -0.1, "scores.depth.rmse: found -0.1, expected 0 to no upper bound"),
    (("constant", "semseg", "miou"), 50.0, "constant.semseg.miou: found 50.0, expected 0 to 1"),
    (("gain", "baseline", "scores", "semseg", "miou"), 53.2, "gain.baseline.scores.semseg.miou: found 53.2"),
    (("scores", "semseg", "miou"), float("nan"), f"{MIOU} nan, expected a finite number, or null"),
    (("scores", "depth", "rmse"), float("inf"), "scores.depth.rmse: found inf, expected a finite number"),
    (("gain", "percent"), float("nan"), "gain.percent: found nan, expected a finite number"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=lambda item: str(item)[:40])
def test_a_file_with_an_impossible_value_cannot_be_read(path, value, message, tmp_path):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(edited(path, value)))
    with pytest.raises(RecordError) as caught:
        Record.load(file)
    assert str(file) in str(caught.value)
    assert any(problem.startswith(message) for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("value", [-5.0, 1e9, 1e308])
def test_an_impossible_value_cannot_be_written(value, tmp_path):
    with pytest.raises(RecordError, match=r"scores.semseg.miou: found .* expected 0 to 1"):
        make_record(value).save(tmp_path / "record.json")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_scored_and_what_rounding_does_are_allowed(tmp_path):
    path = make_record(float("nan"), constant={"semseg": {"miou": 1 + 1e-12}}).save(tmp_path / "record.json")
    assert Record.load(path).constant == {"semseg": {"miou": 1 + 1e-12}}


def test_every_printed_score_of_every_metric_has_a_range():
    found = {score for metric in METRICS for score in METRICS.constant(metric, "ranges")} - {"iou_*"}
    assert found == set(SCORES)
    for protocol in PROTOCOLS.values():
        assert all(range_of(task.metric_names[0], task.headline) for task in protocol.tasks)


def test_ranges_read_from_source_are_those_of_the_classes():
    before = {name: METRICS.constant(name, "ranges") for name in METRICS}
    assert {name: METRICS[name].ranges for name in METRICS} == before


def test_an_outsiders_metric_has_no_range_of_ours():
    mine = {**make_record().tasks[0], "metric": "my-metric", "metric_options": {}}
    assert make_record(-5.0, tasks=[mine, make_record().tasks[1]]).to_json()
    replaced = [{"table": "metric", "name": "iou", "by": "my.module.IoU"}]
    data = make_record(-5.0, replaced=replaced).to_json()
    assert Record.from_json(data).scores["semseg"]["miou"] == -5.0


@pytest.mark.parametrize(("low", "value", "found"), [(None, -1e9, 0), (None, 2.0, 1), (0.0, -0.1, 1)])
def test_a_range_may_have_no_lower_bound(low, value, found, monkeypatch):
    monkeypatch.setattr(METRICS["depth"], "ranges", {"rmse": (low, 1.0)})
    problems = list(range_errors(edited(("scores", "depth", "rmse"), value)))
    problems = [text for text in problems if text.startswith("scores.depth")]
    assert len(problems) == found
    start = "no lower bound" if low is None else "0"
    assert all(f"expected {start} to 1, the range" in text for text in problems)
