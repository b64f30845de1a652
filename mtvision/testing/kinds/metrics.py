"""`check_metric`: what every metric promises."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from mtvision.core.naming import ReportedError
from mtvision.core.prediction import to_prediction
from mtvision.core.task import IGNORE, Task
from mtvision.data.random_images import random_label
from mtvision.metrics import ConstantPredictor, Metric, Sums, add, total
from mtvision.metrics.gain import HIGHER_IS_BETTER
from mtvision.protocols.tasks import semseg
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.inputs import perfect_logits
from mtvision.testing.modules import Setting, copied
from mtvision.testing.numbers import TOLERANCES, expect, same
from mtvision.testing.report import NotApplicable, PropertyError, Report

SIZES = ((24, 30), (33, 21), (27, 27), (24, 30), (30, 36))
"""(H, W) of the images that are measured."""


@dataclass(frozen=True, kw_only=True)
class MetricCase:
    """A metric and the task whose predictions it measures.

    Args:
        make: returns a metric.
        setting: device and precision of predictions.
        task: kind of label, activation, and which score is the headline.
        ranges: {score: (least, largest)}; by default those that the metric declares, else 0..1 where higher
            is better and 0..infinity where lower is.
        higher_is_better: {score: direction} of scores that neither the suite knows nor the metric declares.
        best: {score: what a perfect prediction gets} where that is not the end of the range.
        near: share by which a perfect prediction may miss the best value.
        undefined: scores that may be NaN although there are labels.
    """

    make: Callable[[], Metric]
    setting: Setting = field(default_factory=Setting)
    task: Task = field(default_factory=lambda: semseg(("sky", "road", "car")))
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    near: float = 5e-3
    undefined: Collection[str] = ()

    @cached_property
    def metric(self) -> Metric:
        """The metric."""
        return self.make()

    def label(self, index: int, missing: float = 0.1) -> Tensor:
        """Label of image `index`."""
        label = random_label(self.task, 1, SIZES[index], index, missing)[0]
        return label.to(self.setting.device)

    def prediction(self, index: int, dtype: torch.dtype | None = None) -> Tensor:
        """Random prediction of image `index`, rounded to the setting's precision."""
        generator = torch.Generator().manual_seed(50 + index)
        logits = torch.randn(1, self.task.out_channels, *SIZES[index], generator=generator)
        return self.cast(to_prediction(self.task, logits)[0], dtype)

    def cast(self, prediction: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A prediction on the device; real values in `dtype`, by default the setting's own.

        Ids of instances stay float32: half precision cannot hold them.
        """
        real = dtype or self.setting.dtype
        moved = prediction.to(self.setting.device)
        values = moved.is_floating_point() and self.task.label != "instances"
        return moved.to(real) if values else moved

    def perfect(self, label: Tensor) -> Tensor:
        """The prediction that gives a label without holes."""
        logits = perfect_logits(self.task, label[None].cpu())
        return self.cast(to_prediction(self.task, logits)[0], torch.float32)

    @cached_property
    def sums(self) -> list[Sums]:
        """Of every image; the third has no label."""
        return [
            self.metric.measure(self.prediction(index), self.label(index, 1.0 if index == 2 else 0.1))
            for index in range(len(SIZES))
        ]

    def direction(self, score: str) -> bool:
        """Whether higher is better."""
        if score == self.task.headline:
            return self.task.higher_is_better
        known = {**HIGHER_IS_BETTER, **self.metric.higher_is_better, **self.higher_is_better}
        expect(
            score in known,
            f"score '{score}': no direction is known; declare it in the metric's higher_is_better.",
        )
        return known[score]


METRIC: Battery[MetricCase] = Battery("metric", "mtvision.testing.check_metric(make, only=['{name}'])")


def check_metric(
    make: Callable[[], Metric],
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of metrics on one of them.

    Args:
        make: returns a metric, without arguments.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("metric")` lists them.
        device: of predictions and labels.
        dtype: of real-valued predictions.
        case: fields of `MetricCase`: `task`, `ranges`, `higher_is_better`, `best`, `near`, `undefined`.

    >>> from mtvision.metrics import Depth
    >>> from mtvision.protocols.tasks import depth
    >>> from mtvision.testing import check_metric
    >>> check_metric(Depth, task=depth()).ok
    True
    """
    made = MetricCase(make=make, setting=Setting(device, dtype), **case)
    return METRIC.run(subject_of(make), made, only=only, skip=skip)


def _equal(got: Mapping[str, float], want: Mapping[str, float], what: str, share: float = 1e-12) -> None:
    expect(list(got) == list(want), f"{what}: scores {list(got)}, expected {list(want)}.")
    for name, value in got.items():
        alike = (math.isnan(value) and math.isnan(want[name])) or math.isclose(
            value, want[name], rel_tol=share, abs_tol=share
        )
        expect(alike, f"{what}: {name} = {value!r}, expected {want[name]!r}.")


@METRIC.property("{n: (v.dtype, v.shape, v.device) for n, v in metric.measure(prediction, label).items()}")
def sums_keep_the_contract(case: MetricCase) -> None:
    """Sums are float64 or int64 on the CPU, with the same names and shapes for every image."""
    form = {name: item.shape for name, item in case.sums[0].items()}
    for index, sums in enumerate(case.sums):
        found = {name: item.shape for name, item in sums.items()}
        expect(found == form, f"image {index} gives sums {found}, image 0 {form}.")
        for name, item in sums.items():
            good = item.dtype in (torch.float64, torch.int64) and item.device.type == "cpu"
            expect(good, f"sum '{name}' is {item.dtype} on {item.device}, expected float64 or int64 on cpu.")
            expect(not item.requires_grad, f"sum '{name}' holds a graph; detach it.")


@METRIC.property("metric.score(total(sums)); task.headline, HIGHER_IS_BETTER")
def headline_is_scored(case: MetricCase) -> None:
    """The task's headline is among the scores, and every score has a direction."""
    scores = case.metric.score(total(case.sums))
    expect(case.task.headline in scores, f"scores {list(scores)} lack the headline '{case.task.headline}'.")
    for name in scores:
        case.direction(name)
    known = HIGHER_IS_BETTER.get(case.task.headline, case.task.higher_is_better)
    expect(
        known == case.task.higher_is_better,
        f"'{case.task.headline}': the task says higher_is_better={case.task.higher_is_better}.",
    )


@METRIC.property("metric.score(reduce(add, [total(sums[rank::n]) for rank in range(n)]))")
def sharded_equals_whole(case: MetricCase) -> None:
    """Images split over any number of processes give the same scores."""
    want = case.metric.score(total(case.sums))
    for count in range(2, len(SIZES) + 1):
        parts = [total(case.sums[rank::count]) for rank in range(count)]
        _equal(case.metric.score(reduce(add, parts)), want, f"{count} processes")


@METRIC.property("metric.score(total(reversed(sums)))")
def order_is_irrelevant(case: MetricCase) -> None:
    """Images in another order give the same scores."""
    want = case.metric.score(total(case.sums))
    for order in ([4, 2, 0, 3, 1], list(reversed(range(len(SIZES))))):
        _equal(case.metric.score(total(case.sums[index] for index in order)), want, f"order {order}")


@METRIC.property("change the prediction where label is 255 or NaN; metric.measure(prediction, label)")
def unlabelled_pixels_do_not_matter(case: MetricCase) -> None:
    """What is predicted where there is no label changes no sum."""
    label, prediction = case.label(0, missing=0.3), case.prediction(0)
    holes = label.isnan().all(dim=0) if label.is_floating_point() else label == IGNORE
    other = case.prediction(3)  # of the same size
    if case.task.label == "instances":
        changed = prediction.clone()
        changed[:, holes] = 0
    else:
        changed = torch.where(holes, other, prediction)
    want = case.metric.measure(prediction, label)
    for name, item in case.metric.measure(changed, label).items():
        same(item, want[name], f"sum '{name}' with another prediction at unlabelled pixels")


@METRIC.property("metric.score(metric.measure(prediction, torch.full_like(label, nan)))")
def no_label_is_absent(case: MetricCase) -> None:
    """An image without label adds nothing, as `has_label` says; without any label every score is NaN."""
    without = [sums for index, sums in enumerate(case.sums) if index != 2]
    _equal(
        case.metric.score(total(case.sums)),
        case.metric.score(total(without)),
        "with an unlabelled image",
    )
    for index, sums in enumerate(case.sums):
        said = case.metric.has_label(sums)
        expect(said == (index != 2), f"has_label of image {index}: {said}, expected {index != 2}.")
    for name, value in case.metric.score(case.sums[2]).items():
        expect(math.isnan(value), f"{name} = {value} without any label, expected NaN.")


@METRIC.property("metric.score(metric.measure(perfect prediction, label))")
def perfect_is_best(case: MetricCase) -> None:
    """A perfect prediction gets the best value of every score's range, a random one no better."""
    labels = [case.label(index, missing=0.0) for index in range(len(SIZES))]
    pairs = [(case.perfect(label), label) for label in labels]
    best = case.metric.score(total(case.metric.measure(*pair) for pair in pairs))
    random = case.metric.score(
        total(case.metric.measure(case.prediction(index), label) for index, label in enumerate(labels))
    )
    for name, value in best.items():
        low, high = _range(case, name)
        expect(not math.isnan(value), f"{name} of a perfect prediction is NaN.")
        want = case.best.get(name, high if case.direction(name) else low)
        near = math.isclose(value, want, rel_tol=case.near, abs_tol=5e-2 if want == 0 else 0.0)
        expect(near, f"{name} of a perfect prediction is {value:.6g}, the best is {want:g}.")
        better = random[name] > value if case.direction(name) else random[name] < value
        expect(not better, f"{name}: random {random[name]:.6g} is better than perfect {value:.6g}.")


@METRIC.property("ConstantPredictor(task).prediction(size)")
def constant_is_worse(case: MetricCase) -> None:
    """The best constant prediction has a worse headline than a perfect one."""
    labels = [case.label(index, missing=0.0) for index in range(len(SIZES))]
    predictor = ConstantPredictor(case.task)
    for label in labels:
        predictor.update(label.cpu())
    scores = []
    for predict in (case.perfect, lambda label: case.cast(predictor.prediction(tuple(label.shape[-2:])))):
        sums = total(case.metric.measure(predict(label), label) for label in labels)
        scores.append(case.metric.score(sums)[case.task.headline])
    perfect, constant = scores
    worse = constant < perfect if case.task.higher_is_better else constant > perfect
    expect(worse, f"{case.task.headline}: constant {constant:.6g}, perfect {perfect:.6g}.")


@METRIC.property("metric.score(total(sums))")
def scores_lie_in_their_ranges(case: MetricCase) -> None:
    """Scores of random predictions are floats within their declared ranges."""
    for name, value in case.metric.score(total(case.sums)).items():
        low, high = _range(case, name)
        expect(type(value) is float, f"{name} is a {type(value).__name__}, expected float.")
        allowed = low <= value <= high or (math.isnan(value) and name in case.undefined)
        expect(allowed, f"{name} = {value}, outside {low}..{high}.")


@METRIC.property("metric.measure(prediction.half(), label) against metric.measure(prediction, label)")
def half_precision_is_close(case: MetricCase) -> None:
    """Real-valued predictions in half precision give nearly the scores of float32."""
    if not case.prediction(0).is_floating_point() or case.task.label == "instances":
        raise NotApplicable("predictions are integers.")
    labels = [case.label(index) for index in range(len(SIZES))]
    scores = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        pairs = [(case.prediction(index, dtype), label) for index, label in enumerate(labels)]
        scores[dtype] = case.metric.score(total(case.metric.measure(*pair) for pair in pairs))
    for dtype in (torch.float16, torch.bfloat16):
        for name, value in scores[dtype].items():
            want = scores[torch.float32][name]
            near = math.isclose(value, want, rel_tol=TOLERANCES[dtype], abs_tol=TOLERANCES[dtype])
            expect(
                near or (math.isnan(value) and math.isnan(want)),
                f"{name} is {value:.6g} in {dtype}, {want:.6g} in float32.",
            )


@METRIC.property("prediction and label before and after metric.measure(prediction, label)")
def inputs_are_left_alone(case: MetricCase) -> None:
    """Predictions, labels and sums that are given stay as they are; a second call gives the same."""
    prediction, label = case.prediction(0), case.label(0)
    before = prediction.clone(), label.clone()
    first = case.metric.measure(prediction, label)
    kept = {name: item.clone() for name, item in first.items()}
    same(prediction, before[0], "prediction after measure")
    same(label, before[1], "label after measure")
    scores = case.metric.score(first)
    for name, item in first.items():
        same(item, kept[name], f"sum '{name}' after score")
        same(case.metric.measure(prediction, label)[name], kept[name], f"sum '{name}' of a second call")
    _equal(case.metric.score(first), scores, "second score")


@METRIC.property("metric.measure(prediction[..., :-1], label)")
def other_shapes_are_refused(case: MetricCase) -> None:
    """A prediction that does not lie on the label's pixels raises a `ValueError`."""
    prediction, label = case.prediction(0), case.label(0)
    for what, given in {"another width": prediction[..., :-1], "a batch axis": prediction[None]}.items():
        try:
            case.metric.measure(given, label)
        except ValueError:
            continue
        raise PropertyError(f"a prediction with {what} was accepted: {tuple(given.shape)}.")


@METRIC.property("metric.check_prediction(torch.full_like(prediction, nan), label)")
def sick_predictions_are_refused(case: MetricCase) -> None:
    """Sound predictions pass `check_prediction`; one NaN or infinity, complex and Boolean maps do not."""
    prediction, label = case.prediction(0), case.label(0)
    case.metric.check_prediction(prediction, label)
    real = prediction if prediction.is_floating_point() else prediction.float()
    sick = {"complex values": prediction.to(torch.complex64), "Boolean values": prediction > 0}
    for what in ("nan", "inf", "-inf"):
        sick[f"one {what}"] = real.clone()
        sick[f"one {what}"][..., -1, 0] = float(what)
    for what, given in sick.items():
        try:
            case.metric.check_prediction(given, label)
        except ValueError as error:
            told = isinstance(error, ReportedError)
            expect(told, f"{what}: {type(error).__name__}, expected a `PredictionError`.")
            continue
        raise PropertyError(f"a prediction with {what} was accepted.")


@METRIC.property("pickle.loads(pickle.dumps(metric)); copy.deepcopy(metric)")
def copies_are_equal(case: MetricCase) -> None:
    """Deep copies and pickles give the same scores."""
    want = case.metric.score(total(case.sums))
    for way, other in copied(case.metric).items():
        _equal(other.score(total(case.sums)), want, way)


def _range(case: MetricCase, score: str) -> tuple[float, float]:
    if score in case.ranges:
        return case.ranges[score]
    if isinstance(case.metric, Metric) and score in case.metric.ranges:
        low, high = case.metric.ranges[score]
        return -math.inf if low is None else low, math.inf if high is None else high
    return (0.0, 1.0) if case.direction(score) else (0.0, math.inf)
