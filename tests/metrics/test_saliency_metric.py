"""Saliency: closed forms of every maxF, the survey's mIoU, and PySODMetrics' published numbers."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from mtvision.metrics import Saliency, add, total
from mtvision.metrics.saliency import POOLED_THRESHOLDS


def maps(seed, shape=(12, 17)):
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(shape, generator=generator) < 0.3).long()
    prediction = (0.5 * torch.rand((1, *shape), generator=generator) + 0.5 * label).clamp(0, 1)
    return prediction, label


def slow_max_f(pairs, transform):
    best = 0.0
    for threshold in POOLED_THRESHOLDS:
        correct = found = true = 0
        for prediction, label in pairs:
            positive = transform(prediction[0]) >= torch.tensor(threshold)
            known = label != 255
            correct += int((positive & (label == 1) & known).sum())
            found += int((positive & known).sum())
            true += int((label == 1).sum())
        if correct:
            p, r = correct / found, correct / true
            best = max(best, 1.3 * p * r / (0.3 * p + r))
    return best


def test_max_f_pools_counts_and_matches_a_slow_loop():
    pairs = [maps(seed) for seed in range(4)]
    pairs[0][1][:5] = 255
    metric = Saliency(structure=False)
    scores = metric.score(total(metric.measure(*pair) for pair in pairs))
    assert scores["maxF"] == pytest.approx(slow_max_f(pairs, lambda p: p), rel=1e-12)
    assert scores["maxF_compat"] == pytest.approx(slow_max_f(pairs, torch.sigmoid), rel=1e-12)


@pytest.mark.parametrize(
    ("threshold", "probability"), [(0.55, 0.2007), (0.60, 0.4055), (0.65, 0.6190), (0.70, 0.8473)]
)
def test_compat_thresholds_are_these_probabilities(threshold, probability):
    """A sigmoid of a probability passes the threshold exactly where the protocol's reference says."""
    metric = Saliency(structure=False)
    index = round(threshold * 20) - 1
    values = torch.tensor([probability - 2e-4, probability + 2e-4]).reshape(1, 1, 2)
    sums = metric.measure(values, torch.ones(1, 2, dtype=torch.long))
    assert int(sums["compat_predicted"][index]) == 1
    assert sums["compat_predicted"][:10].tolist() == [2] * 10
    assert sums["compat_predicted"][14:].tolist() == [0] * 5


def test_compat_can_only_see_four_thresholds():
    """Salient pixels at .9, background at .86: the correct code separates them (t = .9), the other cannot."""
    prediction = torch.tensor([[[0.92, 0.86]]])
    metric = Saliency(structure=False)
    scores = metric.score(metric.measure(prediction, torch.tensor([[1, 0]])))
    assert scores["maxF"] == 1
    assert scores["maxF_compat"] == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))


def test_survey_scores_by_hand():
    metric = Saliency(structure=False)
    perfect = metric.measure(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[1, 0]]))
    half = metric.measure(torch.tensor([[[0.95, 0.95]]]), torch.tensor([[1, 0]]))
    empty = metric.measure(torch.zeros(1, 1, 2), torch.zeros(1, 2, dtype=torch.long))
    scores = metric.score(total([perfect, half, empty]))
    assert scores["survey_miou"] == pytest.approx((1 + 0.5 + 1) / 3)
    p, r = (1 + 0.5 + 0) / 3, (1 + 1 + 0) / 3
    assert scores["survey_maxF"] == pytest.approx(2 * p * r / (p + r))


def test_survey_threshold_is_strict():
    metric = Saliency(structure=False)
    label = torch.ones(1, 1, dtype=torch.long)
    at = metric.measure(torch.full((1, 1, 1), 0.2), label)
    above = metric.measure(torch.full((1, 1, 1), 0.201), label)
    assert metric.score(at)["survey_miou"] == 0
    assert metric.score(above)["survey_miou"] == 1


def test_equals_pysodmetrics_on_its_own_examples(real_data):
    """Expected values: `examples/test_metrics.py` of PySODMetrics, version 1.4.0."""
    metric = Saliency()
    sums = []
    for path in sorted((real_data / "saliency_samples" / "masks").glob("*.png")):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 128
        prediction = cv2.imread(str(path.parents[1] / "preds" / path.name), cv2.IMREAD_GRAYSCALE)
        sums.append(metric.measure(torch.from_numpy(prediction / 255)[None], torch.from_numpy(mask).long()))
    scores, images = metric.score(total(sums)), len(sums)
    assert scores["s_measure"] == pytest.approx(0.9029761578759272, abs=1e-12)
    assert scores["mae"] == pytest.approx(0.03705558476661653, abs=1e-12)
    assert scores["e_adaptive"] == pytest.approx(0.9408760066970617, abs=1e-12)
    assert scores["e_mean"] == pytest.approx(0.9566258293508704, abs=1e-12)
    assert scores["e_max"] == pytest.approx(0.9669544828922699, abs=1e-12)
    precision, recall = (total(sums)[f"sod_{name}"] / images for name in ("precision", "recall"))
    assert float(precision.mean()) == pytest.approx(0.5857695537152126, abs=1e-12)
    assert float(precision.max()) == pytest.approx(0.6396783912301717, abs=1e-12)
    assert float(recall.mean()) == pytest.approx(0.5599653001125341, abs=1e-12)
    # Of the library itself, as the example prints F averaged over images:
    assert scores["sod_maxF"] == pytest.approx(0.5900964181306242, abs=1e-12)


def slow_sod_max_f(pairs):
    """The same in plain loops, from 8-bit maps."""
    precisions, recalls = [], []
    for prediction, label in pairs:
        known = label != 255
        values = np.floor(prediction[0][known].numpy() * np.float32(255)).astype(np.float64) / 255
        salient = label[known].numpy() == 1
        if values.max() > values.min():
            values = (values - values.min()) / (values.max() - values.min())
        levels = np.floor(values * 255)
        hits = [int((salient & (levels >= t)).sum()) for t in range(256)]
        found = [int((levels >= t).sum()) for t in range(256)]
        precisions.append([h / f if f else 0.0 for h, f in zip(hits, found, strict=True)])
        recalls.append([h / salient.sum() if salient.any() else 0.0 for h in hits])
    curves = [
        (sum(p) / len(pairs), sum(r) / len(pairs))
        for p, r in zip(zip(*precisions, strict=True), zip(*recalls, strict=True), strict=True)
    ]
    return max(1.3 * p * r / (0.3 * p + r) if p and r else 0.0 for p, r in curves)


def sod_max_f(*pairs):
    metric = Saliency(structure=False)
    return metric.score(total(metric.measure(*pair) for pair in pairs))["sod_maxF"]


def test_sod_max_f_equals_a_slow_loop_in_any_order():
    pairs = [maps(seed) for seed in range(5)]
    pairs[0][1][:5] = 255
    pairs[1] = (pairs[1][0] / 3 + 0.1, pairs[1][1])  # stretched
    pairs[2] = (pairs[2][0], torch.zeros_like(pairs[2][1]))  # nothing salient
    pairs[3] = (torch.full_like(pairs[3][0], 0.4), pairs[3][1])  # constant
    expected = slow_sod_max_f(pairs)
    assert 0.3 < expected < 0.9
    for order in (range(5), (4, 2, 0, 3, 1)):
        assert sod_max_f(*(pairs[index] for index in order)) == pytest.approx(expected, rel=1e-12)


def test_sod_max_f_by_hand():
    label = torch.tensor([[1, 0]])
    assert sod_max_f((torch.tensor([[[0.52, 0.51]]]), label)) == 1  # stretched to 255 and 0
    same = torch.tensor([[[0.52, 0.5199]]])  # one level of 8 bits, so that nothing is stretched
    half = 1.3 * 0.5 / (0.3 * 0.5 + 1)
    assert sod_max_f((same, label)) == pytest.approx(half)
    assert sod_max_f((torch.zeros(1, 1, 2), label)) == pytest.approx(half)  # all is salient from 0 on
    assert sod_max_f((torch.ones(1, 1, 2), label)) == pytest.approx(half)
    assert sod_max_f((torch.tensor([[[0.2, 0.9]]]), label)) == pytest.approx(half)


def test_sod_max_f_averages_precision_and_recall_before_f():
    """Precision and recall are 1 and 1 in one image, 1/4 and 1 in the other, up to the level of both."""
    label = torch.tensor([[1, 0, 0, 0]])
    right = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), label
    wrong = torch.tensor([[[1.0, 1.0, 1.0, 1.0]]]), label
    p, r = (1 + 1 / 4) / 2, 1.0
    assert sod_max_f(right, wrong) == pytest.approx(1.3 * p * r / (0.3 * p + r))
    assert sod_max_f(right, wrong) != pytest.approx((1 + 1.3 / 4 / (0.3 / 4 + 1)) / 2)  # mean of F


def test_an_image_without_salient_pixels_halves_precision_and_recall():
    right = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[1, 0]])
    nothing = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0, 0]])
    assert sod_max_f(right, nothing) == pytest.approx(0.5)
    assert sod_max_f(nothing) == 0


def test_thresholds_of_sod_max_f_without_any_prediction_have_precision_0():
    metric = Saliency(structure=False)
    sums = metric.measure(torch.full((1, 1, 2), 100 / 255), torch.tensor([[1, 0]]))
    assert sums["sod_precision"].tolist() == [0.5] * 101 + [0.0] * 155
    assert sums["sod_recall"].tolist() == [1.0] * 101 + [0.0] * 155


def test_sod_max_f_of_a_map_is_that_of_its_8_bit_file():
    for seed in range(3):
        prediction, label = maps(seed)
        saved = np.floor(prediction.numpy() * 255).astype(np.uint8)
        read = torch.from_numpy((saved / 255).astype(np.float32))
        assert sod_max_f((read, label)) == sod_max_f((prediction, label))


def test_padding_changes_nothing():
    prediction, label = maps(0)
    metric = Saliency()
    padded_label = torch.nn.functional.pad(label, (3, 4, 2, 5), value=255)
    padded = torch.nn.functional.pad(prediction, (3, 4, 2, 5), value=0.7)
    plain = metric.score(metric.measure(prediction, label))
    assert metric.score(metric.measure(padded, padded_label)) == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("value", [0, 1])
def test_constant_labels(value):
    prediction = torch.rand(1, 6, 6)
    label = torch.full((6, 6), value)
    scores = Saliency().score(Saliency().measure(prediction, label))
    stretched = (prediction - prediction.min()) / (prediction.max() - prediction.min())
    mean = float(stretched.mean())
    assert scores["s_measure"] == pytest.approx(mean if value else 1 - mean, rel=1e-6)
    assert all(math.isfinite(score) for score in scores.values())


def test_a_perfect_map():
    label = torch.zeros(8, 8, dtype=torch.long)
    label[2:5, 3:7] = 1
    scores = Saliency().score(Saliency().measure(label[None].float(), label))
    assert scores["s_measure"] == pytest.approx(1)
    assert scores["mae"] == 0
    assert scores["maxF"] == scores["survey_miou"] == scores["sod_maxF"] == 1
    assert scores["e_adaptive"] == pytest.approx(64 / 63)  # the published definition divides by N - 1


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_scores_of_perfect_maps_lie_in_their_ranges(count):
    """A record refuses scores outside; few labelled pixels, or small images, gave more than 1."""
    label = (torch.arange(count) < (count + 1) // 2).long()[None]
    scores = Saliency().score(Saliency().measure(label[None].float(), label))
    for name, (low, high) in Saliency.ranges.items():
        assert low <= scores[name] <= high, name


def test_all_ignored():
    metric = Saliency()
    nothing = metric.measure(torch.rand(1, 4, 4), torch.full((4, 4), 255))
    assert all(math.isnan(value) for value in metric.score(nothing).values())
    some = metric.measure(*maps(0))
    assert metric.score(add(some, nothing)) == metric.score(some)


def test_logits_and_foreign_labels_are_refused():
    label = torch.zeros(2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="probabilities"):
        Saliency().measure(torch.full((1, 2, 2), 3.0), label)
    with pytest.raises(ValueError, match="probabilities"):
        Saliency().measure(torch.full((1, 2, 2), torch.nan), label)
    with pytest.raises(ValueError, match=r"0, 1 or 255, got torch.int64 with \[2\]"):
        Saliency().measure(torch.rand(1, 2, 2), label + 2)
    with pytest.raises(ValueError, match=r"expected \(1, H, W\)"):
        Saliency().measure(torch.rand(2, 2, 2), label)
    assert np.isfinite(Saliency().measure(torch.rand(1, 2, 2), label)["mae"].item())
