"""No number from a sick prediction, in memory; what is not scored is counted, on any number of processes."""

from __future__ import annotations

import io
import math

import pytest
import torch
from rich.console import Console
from torch import nn

from mtvision.core.naming import ReportedError
from mtvision.core.sample import Batch, Meta
from mtvision.evaluation import evaluator as evaluator_module
from mtvision.evaluation.evaluator import NothingLabelledError, SampleEvaluator
from mtvision.evaluation.scoring import evaluate, predict_batch
from mtvision.metrics import Depth, InstanceAP, Normals, build_metric
from mtvision.metrics.checks import PredictionError, check_numbers
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import depth, edge, instance, normals, saliency, semseg
from mtvision.testing.processes import Group

SIZE = (2, 3)


def label_of(task, value=None):
    """A label with one value everywhere; None = no labelled pixel."""
    if task.label == "values":
        return torch.full((task.label_channels, *SIZE), math.nan if value is None else float(value))
    return torch.full(SIZE, 255 if value is None else value)


def test_the_message_says_how_many_which_where_and_what_to_do():
    prediction = torch.ones(1, *SIZE)
    prediction[0, 1, 2] = math.nan
    prediction[0, 0, 1] = math.inf
    with pytest.raises(PredictionError) as caught:
        SampleEvaluator([depth()]).add("b/7", {"depth": (prediction, torch.ones(1, *SIZE))})
    assert str(caught.value) == (
        "task 'depth', image 'b/7': found 1 NaN and 1 infinite of 6 values, the first at [0, 0, 1], expected "
        "finite numbers. The network's weights or outputs are not sound: look at its losses, take an earlier "
        'checkpoint, or evaluate with precision="fp32".'
    )
    assert isinstance(caught.value, ReportedError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (torch.zeros(2, dtype=torch.complex64), "complex values"),
        (torch.zeros(2, dtype=torch.bool), "Boolean values"),
        (torch.tensor([0, -math.inf]), r"1 infinite of 2 values, the first at \[1\]"),
        (torch.tensor([math.nan, 0], dtype=torch.bfloat16), r"1 NaN of 2 values, the first at \[0\]"),
        (torch.tensor([65504, 65520.0]).half(), r"1 infinite of 2 values, the first at \[1\]"),
        (torch.tensor(math.nan), r"1 NaN of 1 values, the first at \[\]"),
    ],
)
def test_numbers(values, found):
    with pytest.raises(PredictionError, match=found):
        check_numbers(values)


def test_unusual_numbers_are_numbers():
    many = torch.tensor([-0.0, 1e-45, 3e38, 3e38])  # their sum is infinite
    for values in (many, torch.full((9,), 6e4).half(), torch.tensor([-1, 2**62]), torch.zeros(0)):
        check_numbers(values)


@pytest.mark.fault(
    "a prediction of NaN, infinity or too large an id", expected="no score; image, number and place are named"
)
@pytest.mark.parametrize("name", ["semseg", "depth", "normals", "edge", "saliency", "human_parts"])
def test_one_wrong_value_without_a_label_is_refused_too(name):
    task = build_task(name, class_names=("a", "b")) if name == "semseg" else build_task(name)
    prediction = torch.full((task.label_channels, *SIZE), math.nan)
    with pytest.raises(PredictionError, match=rf"task '{name}', image 'x': found .* NaN"):
        SampleEvaluator([task]).add("x", {name: (prediction, label_of(task))})


def test_nothing_is_measured_or_saved_of_a_sick_image():
    saved = []
    evaluator = SampleEvaluator([depth(), normals()], save=lambda image, maps: saved.append(image))
    labels = {"depth": torch.ones(1, 1, *SIZE), "normals": torch.ones(1, 3, *SIZE)}
    batch = batch_of(labels)
    good, bad = torch.ones(1, *SIZE), torch.full((3, *SIZE), math.nan)
    with pytest.raises(PredictionError, match="task 'normals'"):
        evaluator.process([{"depth": good, "normals": bad}], batch)
    assert saved == []
    evaluator.process([{"depth": good, "normals": good.expand(3, -1, -1)}], batch)
    assert evaluator.evaluate(1)["depth/rmse"] == 0
    assert saved == ["0"]


def batch_of(labels, present=None):
    count = len(next(iter(labels.values())))
    return Batch(
        image=torch.zeros(count, 3, *SIZE),
        labels=labels,
        present={name: torch.ones(count, dtype=torch.bool) for name in labels} | (present or {}),
        meta=[Meta(id=str(index), size=SIZE, original_size=SIZE) for index in range(count)],
    )


@pytest.mark.parametrize(("length", "good"), [(0.0, False), (1e-13, False), (1e-11, True), (1e30, True)])
def test_normals_need_a_length_where_there_is_a_label(length, good):
    prediction = torch.ones(3, *SIZE)
    prediction[:, 1, 0] = torch.tensor([0.0, 0.0, length])
    label = torch.ones(3, *SIZE)
    metric = Normals()
    if good:
        metric.check_prediction(prediction, label)
        assert metric.score(metric.measure(prediction, label))["mean"] < 20
    else:
        with pytest.raises(
            PredictionError, match=r"1 of 6 labelled pixels with vectors of zero .* at \[1, 0\]"
        ):
            metric.check_prediction(prediction, label)
    for nothing in (0.0, math.nan):  # zero and NaN mean "no normal"
        label[:, 1, 0] = nothing
        metric.check_prediction(prediction, label)


def test_normals_too_long_for_float64_have_no_length_either():
    prediction = torch.full((3, *SIZE), 1e200, dtype=torch.float64)
    with pytest.raises(
        PredictionError, match="6 of 6 labelled pixels with vectors of zero or infinite length"
    ):
        Normals().check_prediction(prediction, torch.ones(3, *SIZE))


def test_another_size_is_still_the_business_of_measure():
    with pytest.raises(ValueError, match=r"image 'a': normals: prediction has shape \(3, 2, 2\)"):
        SampleEvaluator([normals()]).add("a", {"normals": (torch.zeros(3, 2, 2), torch.ones(3, *SIZE))})


def test_instance_ids_are_whole_numbers():
    metric, label = InstanceAP(num_classes=2), torch.zeros(SIZE, dtype=torch.int32)
    prediction = torch.tensor([256.0, 0.5])[:, None, None].expand(2, *SIZE).clone()
    metric.check_prediction(prediction, label)
    prediction[0, 1, 1] = 256.5
    with pytest.raises(
        PredictionError, match=r"1 of 6 instance ids with a fraction, the first at \[0, 1, 1\]"
    ):
        metric.check_prediction(prediction, label)


def test_depths_at_or_below_zero_are_scored_and_said():
    guess = torch.tensor([-1.0, 0.0, -0.0, 1e-45, 2.0, 3.0]).reshape(1, *SIZE)
    label = torch.ones(1, *SIZE)
    label[0, 0, 0] = math.nan  # of no account
    for clamp, which in ((True, "abs_err and rel_err"), (False, "rmse, abs_err and rel_err")):
        evaluator = SampleEvaluator([depth()], {"depth": {"clamp": clamp}})
        evaluator.add("a", {"depth": (guess, label)})
        evaluator.add("b", {"depth": (torch.ones(1, *SIZE), label)})
        evaluator.evaluate(2)
        assert evaluator.notes() == [
            "depth: 2 of 10 scored pixels, in 1 of 2 images, are predicted at or below zero. They count as "
            f"1e-09, in {which} as they are."
        ]
    metric = Depth()
    assert metric.remarks([metric.measure(torch.ones(1, *SIZE), label)]) == []
    assert int(metric.measure(guess, label)["not_positive"]) == 2


LABELLED = {
    "semseg": (semseg(["a", "b"]), 0),
    "depth": (depth(), 1),
    "normals": (normals(), 1),
    "edge": (edge(thresholds=3), 0),
    "saliency": (saliency(), 0),
    "instance": (instance(["a"]), 0),
}


@pytest.mark.parametrize("name", LABELLED)
def test_has_label_also_where_no_score_is_defined(name):
    task, value = LABELLED[name]
    metric = build_metric(task)
    channels = {"semseg": (), "instance": (2,)}.get(name, (task.label_channels,))
    prediction = torch.zeros((*channels, *SIZE), dtype=torch.long if name == "semseg" else torch.float32)
    one = label_of(task, None)
    one[..., :2, :2] = value
    assert metric.has_label(metric.measure(prediction, one))
    assert not metric.has_label(metric.measure(prediction, label_of(task, None)))


def test_depths_beyond_the_limit_are_no_label():
    metric = build_metric(depth(max_depth=80))
    guess = torch.ones(1, *SIZE)
    assert not metric.has_label(metric.measure(guess, torch.full((1, *SIZE), 80.0)))
    assert metric.has_label(metric.measure(guess, torch.full((1, *SIZE), 79.0)))


TASKS = (semseg(["a", "b"]), depth())


def add_images(evaluator, images):
    """`11`: both tasks labelled; `1-`: no label of depth; `10`: a label of depth without a labelled pixel."""
    for image, kinds in images.items():
        pairs = {}
        for task, kind in zip(TASKS, kinds, strict=True):
            label = label_of(task, 1 if kind == "1" else None)
            if kind != "-":
                pairs[task.name] = (torch.ones_like(label).nan_to_num(), label)
        evaluator.add(image, pairs)


IMAGES = {"a": "11", "b": "01", "c": "1-", "d": "00", "e": "1-", "f": "-1"}
NOTE = (
    "Not scored, of 6 images: semseg 2 (no labelled pixel), semseg 1 (no label), "
    "depth 1 (no labelled pixel), depth 2 (no label)."
)


def test_images_without_labels_are_counted():
    evaluator = SampleEvaluator(TASKS)
    add_images(evaluator, IMAGES)
    evaluator.evaluate(6)
    assert evaluator.notes() == [NOTE]
    add_images(evaluator, {"a": "11"})
    evaluator.evaluate(1)
    assert evaluator.notes() == []


@pytest.mark.parametrize("shards", [("abcdef", ""), ("ace", "bdf"), ("bd", "acef")])
def test_two_processes_count_what_one_counts(shards, monkeypatch):
    group = Group(2)
    monkeypatch.setattr(evaluator_module, "gather", group.gather)

    def member(own):
        evaluator = SampleEvaluator(TASKS)
        add_images(evaluator, {image: IMAGES[image] for image in own})
        return evaluator.evaluate(6), evaluator.notes()

    first, second = group.run([lambda own=own: member(own) for own in shards])
    assert first == second
    assert first[1] == [NOTE]


@pytest.mark.fault("no labelled pixel at all", expected="an error on every rank, not a score")
@pytest.mark.parametrize(
    ("images", "maps"), [({"a": "10", "b": "1-"}, 1), ({"a": "1-"}, 0), ({"a": "10"}, 1)]
)
def test_a_task_without_a_labelled_pixel_is_an_error_on_every_process(images, maps, monkeypatch):
    text = rf"task 'depth' has no labelled pixel in {len(images)} images \({maps} have a label map\)"
    evaluator = SampleEvaluator(TASKS)
    add_images(evaluator, images)
    with pytest.raises(NothingLabelledError, match=text) as caught:
        evaluator.evaluate(len(images))
    assert isinstance(caught.value, ReportedError)
    group = Group(2)
    monkeypatch.setattr(evaluator_module, "gather", group.gather)
    failed = []

    def member(own):
        evaluator = SampleEvaluator(TASKS)
        add_images(evaluator, own)
        with pytest.raises(NothingLabelledError, match=text):
            evaluator.evaluate(len(images))
        failed.append(own)

    group.run([lambda own=own: member(own) for own in (images, {})])
    assert len(failed) == 2


class Constant(nn.Module):
    """A network whose logits are a given value everywhere, or at the last pixel of the last image."""

    def __init__(self, tasks, value, everywhere=False):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value)))
        self.tasks, self.everywhere = tasks, everywhere

    @property
    def task_names(self):
        return tuple(task.name for task in self.tasks)

    def forward(self, image, tasks, size):
        logits = {task.name: torch.ones(len(image), task.out_channels, *size) for task in self.tasks}
        for values in logits.values():
            values[... if self.everywhere else (-1, -1, -1, -1)] = self.value
        return logits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", LABELLED)
def test_activations_do_not_hide_sick_logits(name, value):
    """`argmax` makes a class of NaN, `sigmoid` 0 or 1 of infinity, and `positive` 0 of minus infinity."""
    task, _ = LABELLED[name]
    batch = batch_of({name: torch.stack([label_of(task, 1)] * 3)})
    kind = "NaN" if math.isnan(value) else "infinite"
    with pytest.raises(
        PredictionError, match=rf"task '{name}', image '2', logits of the network: found 1 {kind}"
    ):
        predict_batch(Constant([task], value), [task], batch)
    with pytest.raises(PredictionError, match="image '0'"):
        predict_batch(Constant([task], value, everywhere=True), [task], batch)


class Loader(list):
    """Batches, and the data set whose length is asked for."""

    dataset = range(3)
    num_workers = 0


def test_an_evaluation_says_what_was_not_scored():
    labels = torch.stack([label_of(depth(), 1), label_of(depth(), 1), label_of(depth())])
    text = io.StringIO()
    console = Console(file=text, width=40)
    batch = batch_of({"depth": labels})
    evaluator = SampleEvaluator([depth()])
    scores = evaluate(Constant([depth()], -2), Loader([batch]), evaluator, console=console)
    assert scores["depth"]["rmse"] == 0
    assert "Not scored, of 3 images: depth 1 (no labelled pixel).\n" in text.getvalue()
    evaluate(Constant([depth()], -2, everywhere=True), Loader([batch]), evaluator, console=console)
    assert "depth: 12 of 12 scored pixels, in 2 of 3 images, are predicted" in text.getvalue()
    with pytest.raises(PredictionError, match="image '2'"):
        evaluate(Constant([depth()], math.nan), Loader([batch]), evaluator)
