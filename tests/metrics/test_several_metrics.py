"""Several metrics of a task: one set of sums, distinct scores, options by name, one headline."""

import pickle
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from mtvision.core.registry import METRICS
from mtvision.metrics import Metric, build_metric, gain, total
from mtvision.metrics.building import require_scores, scored_task
from mtvision.metrics.checks import PredictionError
from mtvision.metrics.several.options import check_task, metric_configs
from mtvision.metrics.statistics import bootstrap
from mtvision.metrics.sums import Ranges
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import depth, edge, normals
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.display import display_of


@dataclass(frozen=True, kw_only=True)
class Largest(Metric):
    """The largest prediction; the last of all images."""

    ranges: ClassVar[Ranges] = {"largest": (0.0, None)}
    higher_is_better: ClassVar[dict[str, bool]] = {"largest": True}
    factor: float = 1.0
    max_depth: float | None = None

    def check_prediction(self, prediction, label):
        if bool((prediction > 100).any()):
            raise PredictionError("more than 100", "less")

    def measure(self, prediction, label):
        return {"sum": self.factor * prediction.double().amax(), "images": torch.tensor(1)}

    def score(self, sums):
        return {"largest": float(sums["sum"]) / int(sums["images"])}

    def has_label(self, sums):
        return False

    def remarks(self, per_image):
        return [f"{len(per_image)} images"]


class Undeclared(Largest):
    ranges: ClassVar[Ranges] = {}


class Same(Largest):
    ranges: ClassVar[Ranges] = {}

    def score(self, sums):
        return {"rmse": 1.0}


class Raw(Largest):
    activation = "identity"


@pytest.fixture(autouse=True)
def registered():
    saved = METRICS.saved()
    for kind in (Largest, Undeclared, Same, Raw):
        METRICS.register_module(kind.__name__.lower())(kind)
    yield
    METRICS.restore(saved)


def two(*names, **fields):
    return build_task("depth", max_depth=5, metrics=["depth", *names], **fields)


def images():
    generator = torch.Generator().manual_seed(0)
    return [
        (6 * torch.rand(1, 4, 5, generator=generator), 6 * torch.rand(1, 4, 5, generator=generator))
        for _ in range(4)
    ]


def test_scores_are_those_of_each_metric_alone():
    metric, alone = build_metric(two("largest")), (build_metric(depth(max_depth=5)), Largest())
    sums = [metric.measure(*pair) for pair in images()]
    expected = {}
    for single in alone:
        expected |= single.score(total(single.measure(*pair) for pair in images()))
    assert metric.score(total(sums)) == expected
    assert metric.remarks(sums)[-1] == "4 images"
    assert metric.has_label(sums[0])
    empty = metric.measure(torch.ones(1, 2, 2), torch.full((1, 2, 2), torch.nan))
    assert not metric.has_label(empty)
    assert not metric.expensive
    assert build_metric(replace(edge(), metrics=({"type": "edge"}, {"type": "largest"}))).expensive
    found = bootstrap(metric, sums, resamples=4)
    assert found.keys() == expected.keys()
    assert pickle.loads(pickle.dumps(metric)).score(total(sums)) == expected


def test_a_task_of_one_metric_has_that_metric():
    assert type(build_metric(depth())).__name__ == "Depth"


def test_each_metric_may_refuse_a_prediction():
    with pytest.raises(PredictionError, match="more than 100"):
        build_metric(two("largest")).check_prediction(torch.full((1, 2, 2), 101.0), torch.ones(1, 2, 2))
    with pytest.raises(PredictionError, match="NaN"):
        build_metric(two("largest")).check_prediction(torch.full((1, 2, 2), torch.nan), torch.ones(1, 2, 2))


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({}, {"max_depth": 5}, {}),
        ({"clamp": False}, {"max_depth": 5, "clamp": False}, {}),
        ({"factor": 2}, {"max_depth": 5}, {"factor": 2}),
        ({"max_depth": 3}, {"max_depth": 3}, {}),  # both have it: the first
        ({"largest": {"max_depth": 3}}, {"max_depth": 5}, {"max_depth": 3}),
        ({"depth": {"clamp": False}, "factor": 3}, {"max_depth": 5, "clamp": False}, {"factor": 3}),
        ({"fctor": 2}, {"max_depth": 5, "fctor": 2}, {}),
    ],
)
def test_options_go_to_the_metric_that_has_them(changes, first, second):
    task = two("largest")
    assert metric_configs(task, changes) == [{"type": "depth", **first}, {"type": "largest", **second}]
    assert task == two("largest")


def test_scores_of_one_name_and_a_wrong_headline_are_refused_before_training():
    for names in (["values"], ["same"]):
        task = two(*names)
        with pytest.raises(ValueError, match="'rmse'"):
            require_scores(task, build_metric(task))
    with pytest.raises(
        ValueError, match="metrics 'depth' and 'values' of task 'depth' both have a score 'rmse'"
    ):
        check_task(two("values"))
    wrong = replace(depth(), headline="rms")
    with pytest.raises(
        ValueError, match="headline 'rms' of task 'depth' is no score of its metrics; they give rmse"
    ):
        check_task(wrong)
    task = two("undeclared", headline="larges", higher_is_better=True)
    check_task(task)  # what is not declared is tried
    with pytest.raises(ValueError, match="headline 'larges' .* they give .*, largest"):
        require_scores(task, build_metric(task))
    for good in (two("undeclared"), two("largest", headline="largest", higher_is_better=True)):
        check_task(good)
        require_scores(good, build_metric(good))


@pytest.mark.parametrize("task", [normals(), edge(), build_task("parts", class_names=["a", "b"])], ids=str)
def test_undeclared_metrics_are_tried_on_every_kind_of_label(task):
    task = replace(task, metrics=(*task.metrics, {"type": "undeclared"}))
    require_scores(task, build_metric(task))


def test_names_are_refused_with_near_ones():
    for field, name, near in (("colours", "deph", "depth"), ("activation", "positiv", "positive")):
        with pytest.raises(KeyError, match=f"Unknown {field} '{name}'. Did you mean '{near}'"):
            check_task(replace(depth(), **{field: name}))


def test_metrics_that_read_different_predictions():
    with pytest.raises(ValueError, match="different kinds: depth positive, raw identity"):
        build_metric(two("raw"))
    task = two("raw", activation="identity")
    assert scored_task(task, build_metric(task)).activation == "identity"
    clamped = build_metric(two("raw"), clamp=False)
    assert scored_task(task, clamped).activation == "identity"


def test_entries_of_records():
    task = two("largest")
    (entry,) = describe_tasks([task], {"depth": {"clamp": False, "largest": {"factor": 2}}})
    assert entry["metric_options"] == {"max_depth": 5, "clamp": False}
    assert entry["further_metrics"] == [{"metric": "largest", "metric_options": {"factor": 2}}]
    assert entry["evaluator"] == "protocol with clamp=False, largest.factor=2"
    assert entry["directions"] == {"largest": True}
    assert display_of(entry, "largest").higher_is_better is True
    assert describe_tasks([task])[0]["evaluator"] == "protocol"
    assert describe_tasks([depth()])[0].keys() == {
        "name", "headline", "higher_is_better", "unit", "metric", "metric_options", "evaluator",
    }  # fmt: skip


def test_a_gain_over_all_scores_knows_the_direction():
    scores, baseline = {"depth": {"rmse": 0.5, "largest": 4.0}}, {"depth": {"rmse": 1.0, "largest": 2.0}}
    found = gain.gain([two("largest")], scores, baseline, "tasks")
    assert found.percent == pytest.approx((50 + 100) / 2)


def test_values_have_a_closed_form():
    metric = build_metric(build_task("flow", label="values", label_channels=2))
    label = torch.tensor([[[1.0, torch.nan]], [[4.0, torch.inf]]])
    prediction = torch.tensor([[[4.0, 9.0]], [[0.0, 9.0]]])
    assert metric.score(metric.measure(prediction, label)) == {"mae": 3.5, "rmse": pytest.approx(12.5**0.5)}
    assert not metric.has_label(metric.measure(prediction, torch.full_like(label, torch.nan)))


def test_degrees_are_those_of_normals_alone():
    own = {"metric": "mine", "headline": "mean", "higher_is_better": False, "unit": "cd"}
    assert display_of(own, "mean").unit == "cd"
    assert display_of({**own, "metric": "normals", "unit": ""}, "mean").unit == "°"
