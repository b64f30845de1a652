"""IoU, depth and normals: by hand, against slow code, and the rules for labels that are missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtvision.metrics import Depth, IoU, Normals, add, score_by_groups, total
from mtvision.metrics.building import scored_task
from mtvision.metrics.normals import angles
from mtvision.protocols import tasks as make_task


def class_maps(seed, classes=5, shape=(11, 7), ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, classes, shape, generator=generator)
    label = torch.randint(0, classes, shape, generator=generator)
    label[torch.rand(shape, generator=generator) < ignored] = 255
    return prediction, label


class TestIoU:
    def test_by_hand(self):
        prediction = torch.tensor([[0, 0, 1, 1, 1]])
        label = torch.tensor([[0, 1, 1, 255, 1]])
        metric = IoU(num_classes=2, per_class=True)
        scores = metric.score(metric.measure(prediction, label))
        assert scores["iou_0"] == 1 / 2
        assert scores["iou_1"] == 2 / 3
        assert scores["miou"] == pytest.approx(7 / 12)
        assert scores["pixel_accuracy"] == 3 / 4

    def test_absent_class_counts_zero_or_nothing(self):
        prediction, label = torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long)
        zero, nothing = IoU(num_classes=4), IoU(num_classes=4, absent="nan")
        assert zero.score(zero.measure(prediction, label))["miou"] == 0.25
        assert nothing.score(nothing.measure(prediction, label))["miou"] == 1.0

    def test_pools_counts_over_images_instead_of_averaging_images(self):
        metric = IoU(num_classes=2)
        pairs = [class_maps(0, 2, (3, 3)), class_maps(1, 2, (20, 20))]
        sums = [metric.measure(*pair) for pair in pairs]
        pooled = metric.score(total(sums))["miou"]
        prediction = torch.cat([pair[0].flatten() for pair in pairs])
        label = torch.cat([pair[1].flatten() for pair in pairs])
        known = label != 255
        slow = []
        for c in range(2):
            p, t = prediction[known] == c, label[known] == c
            slow.append(float((p & t).sum() / (p | t).sum()))
        assert pooled == pytest.approx(np.mean(slow), rel=1e-6)
        assert score_by_groups(metric, sums, 1)["miou"] == pytest.approx(
            np.mean([metric.score(part)["miou"] for part in sums])
        )
        assert pooled != pytest.approx(score_by_groups(metric, sums, 1)["miou"], abs=1e-4)

    def test_predictions_on_unlabelled_pixels_cost_nothing(self):
        metric = IoU(num_classes=5)
        prediction, label = class_maps(3)
        other = torch.where(label == 255, (prediction + 1) % 5, prediction)
        first, second = metric.measure(prediction, label), metric.measure(other, label)
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_all_ignored_adds_nothing_and_scores_nan_alone(self):
        metric = IoU(num_classes=5)
        nothing = metric.measure(torch.zeros(2, 2, dtype=torch.long), torch.full((2, 2), 255))
        assert all(math.isnan(value) for value in metric.score(nothing).values())
        some = metric.measure(*class_maps(0))
        assert metric.score(add(some, nothing)) == metric.score(some)

    def test_id_out_of_range(self):
        metric = IoU(num_classes=3)
        good, bad = torch.zeros(1, 2, dtype=torch.long), torch.tensor([[0, 3]])
        with pytest.raises(ValueError, match=r"label class id 3 is outside 0\.\.2"):
            metric.measure(good, bad)
        with pytest.raises(ValueError, match="predicted class id 3"):
            metric.measure(bad, good)

    def test_number_of_classes(self):
        ground = torch.zeros(2, 2, dtype=torch.long)
        metric = IoU(num_classes=1)
        assert metric.score(metric.measure(ground, ground))["miou"] == 1
        for number in (0, 256):
            with pytest.raises(ValueError, match="num_classes"):
                IoU(num_classes=number)

    def test_logits_are_refused(self):
        with pytest.raises(ValueError, match="argmax"):
            IoU(num_classes=3).measure(torch.rand(4, 4), torch.zeros(4, 4, dtype=torch.long))


def depth_maps(seed, shape=(1, 9, 7)):
    generator = torch.Generator().manual_seed(seed)
    label = torch.rand(shape, generator=generator) * 5 + 0.1
    label[torch.rand(shape, generator=generator) < 0.3] = torch.nan
    return torch.rand(shape, generator=generator) * 5 + 0.1, label


class TestDepth:
    def test_by_hand(self):
        metric = Depth()
        prediction = torch.tensor([[[2.0, 9.0, 4.0]]])
        label = torch.tensor([[[1.0, torch.nan, 4.0]]])
        scores = metric.score(metric.measure(prediction, label))
        assert scores["rmse"] == pytest.approx(math.sqrt(1 / 2))
        assert scores["log_rmse"] == pytest.approx(math.log(2) / math.sqrt(2))
        assert scores["abs_rel"] == scores["sq_rel"] == scores["abs_err"] == scores["rel_err"] == 0.5
        assert scores["delta1"] == scores["delta2"] == scores["delta3"] == 0.5  # 2 > 1.25^3

    def test_matches_numpy(self):
        metric = Depth()
        prediction, label = depth_maps(0)
        scores = metric.score(metric.measure(prediction, label))
        known = np.isfinite(label.numpy())
        z, d = prediction.numpy()[known].astype("f8"), label.numpy()[known].astype("f8")
        ratio = np.maximum(z / d, d / z)
        assert scores == pytest.approx(
            {
                "rmse": np.sqrt(np.mean((z - d) ** 2)),
                "log_rmse": np.sqrt(np.mean((np.log(z) - np.log(d)) ** 2)),
                "abs_rel": np.mean(np.abs(z - d) / d),
                "sq_rel": np.mean((z - d) ** 2 / d),
                "delta1": np.mean(ratio < 1.25),
                "delta2": np.mean(ratio < 1.25**2),
                "delta3": np.mean(ratio < 1.25**3),
                "abs_err": np.mean(np.abs(z - d)),
                "rel_err": np.mean(np.abs(z - d) / d),
            },
            rel=1e-12,
        )

    def test_pooling_is_not_the_mean_of_images(self):
        metric = Depth()
        small = metric.measure(torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, torch.nan]]]))
        large = metric.measure(torch.ones(1, 1, 3), torch.ones(1, 1, 3))
        assert metric.score(add(small, large))["rmse"] == pytest.approx(0.5)
        assert score_by_groups(metric, [small, large], 1)["rmse"] == pytest.approx(0.5 * (1 + 0))
        assert score_by_groups(metric, [small, large], 2)["rmse"] == pytest.approx(0.5)
        assert score_by_groups(metric, [small, small, large], 2)["rmse"] == pytest.approx(0.5)
        assert metric.score(total([small, small, large]))["rmse"] == pytest.approx(math.sqrt(2 / 5))

    def test_cut_leaves_out_and_counts_far_pixels(self):
        label = torch.tensor([[[10.0, 80.0, 90.0, torch.nan]]])
        sums = Depth(max_depth=80).measure(torch.full((1, 1, 4), 11.0), label)
        assert int(sums["pixels"]) == 1
        assert int(sums["cut"]) == 2
        assert Depth(max_depth=80).score(sums)["rmse"] == 1.0

    def test_clamped_and_raw_predictions_score_alike_but_for_family_c(self):
        metric = Depth()
        raw, label = torch.tensor([[[-1.0]]]), torch.tensor([[[2.0]]])
        first = metric.score(metric.measure(raw, label))
        second = metric.score(metric.measure(raw.clamp(min=0), label))
        assert first["rmse"] == second["rmse"] == pytest.approx(2)
        assert first["log_rmse"] == second["log_rmse"] == pytest.approx(math.log(2e9))
        assert (first["abs_err"], second["abs_err"]) == (3, 2)

    def test_rmse_without_the_clamp(self):
        """As ATRC's metric: the error of a depth below zero is the whole distance; no other score changes."""
        raw, label = torch.tensor([[[-1.0, 2.5]]]), torch.tensor([[[2.0, 2.0]]])
        clamped, metric = Depth(), Depth(clamp=False)
        first = clamped.score(clamped.measure(raw, label))
        second = metric.score(metric.measure(raw, label))
        assert first.pop("rmse") == pytest.approx(math.sqrt((2**2 + 0.5**2) / 2))
        assert second.pop("rmse") == pytest.approx(math.sqrt((3**2 + 0.5**2) / 2))
        assert first == second
        task = make_task.depth()
        assert scored_task(task, clamped) == task
        assert scored_task(task, metric) == replace(task, activation="identity")

    def test_arguments_survive(self):
        prediction, label = depth_maps(1)
        prediction[0, 0, 0], label[0, 0, 0] = -3, 0
        before = prediction.clone(), label.clone()
        Depth().measure(prediction, label)
        torch.testing.assert_close((prediction, label), before, equal_nan=True, rtol=0, atol=0)

    def test_nothing_valid(self):
        metric = Depth()
        scores = metric.score(metric.measure(torch.ones(1, 2, 2), torch.full((1, 2, 2), torch.nan)))
        assert all(math.isnan(value) for value in scores.values())

    def test_shape_errors_name_both_shapes(self):
        with pytest.raises(ValueError, match=r"\(1, 2, 2\).*\(1, 4, 4\)"):
            Depth().measure(torch.ones(1, 2, 2), torch.ones(1, 4, 4))
        with pytest.raises(ValueError, match="without batch axis"):
            Depth().measure(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))


def normal_maps(seed, shape=(3, 40, 30)):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randn(shape, generator=generator)
    prediction = label + torch.randn(shape, generator=generator) * 0.4
    label[:, torch.rand(shape[1:], generator=generator) < 0.2] = torch.nan
    return prediction, label


class TestNormals:
    @pytest.mark.parametrize("degrees", [0.0, 1e-5, 11.0, 45.0, 90.0, 179.99999])
    def test_known_angles_at_any_length(self, degrees):
        radians = math.radians(degrees)
        p = torch.tensor([math.cos(radians), math.sin(radians), 0], dtype=torch.float64)[:, None, None] * 7
        g = torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)[:, None, None]
        assert float(angles(p, g)) == pytest.approx(degrees, abs=1e-9)

    def test_agrees_with_the_arc_cosine_away_from_0_and_180(self):
        p, g = torch.randn(3, 5000), torch.randn(3, 5000)
        p, g = (v.double() / v.double().norm(dim=0) for v in (p, g))
        slow = torch.rad2deg(torch.arccos((p * g).sum(0)))
        far = (slow > 1) & (slow < 179)
        torch.testing.assert_close(angles(p, g)[far], slow[far], rtol=0, atol=1e-6)

    def test_the_fused_pass_gives_the_numbers_of_the_written_out_formula(self):
        """Several blocks of pixels, labels with gaps, and vectors that are opposite, equal, tiny and zero."""
        prediction, label = normal_maps(3, (3, 150, 200))
        prediction[:, 0] = -label[:, 0]
        prediction[:, 1] = label[:, 1] * 3
        prediction[:, 2, :50] = 1e-20
        prediction[:, 2, 50:] = 0
        known = torch.isfinite(label).all(dim=0) & (label != 0).any(dim=0)
        p, g = (torch.nn.functional.normalize(x[:, known].double(), dim=0) for x in (prediction, label))
        slow = torch.rad2deg(2 * torch.atan2((p - g).norm(dim=0), (p + g).norm(dim=0)))
        torch.testing.assert_close(angles(prediction, label)[known], slow, rtol=0, atol=1e-12)
        sums = Normals().measure(prediction, label)
        assert int(sums["pixels"]) == slow.numel()
        assert float(sums["angle"]) == pytest.approx(float(slow.sum()), rel=1e-14)
        assert sums["within"].tolist() == [int((slow < limit).sum()) for limit in (11.25, 22.5, 30)]

    def test_matches_numpy(self):
        metric = Normals()
        prediction, label = normal_maps(0)
        known = np.isfinite(label.numpy()).all(axis=0)
        angle = angles(prediction[:, known], label[:, known]).numpy()
        scores = metric.score(metric.measure(prediction, label))
        assert scores["mean"] == pytest.approx(angle.mean(), rel=1e-12)
        assert scores["rmse"] == pytest.approx(np.sqrt((angle**2).mean()), rel=1e-12)
        for limit in ("11.25", "22.5", "30"):
            assert scores[limit] == pytest.approx((angle < float(limit)).mean(), rel=1e-12)

    def test_zero_vectors_are_right_angles_in_predictions_and_no_label_in_labels(self):
        metric = Normals()
        prediction, label = torch.zeros(3, 1, 2), torch.tensor([0.0, 0, 1])[:, None, None].repeat(1, 1, 2)
        label[:, 0, 1] = 0
        sums = metric.measure(prediction, label)
        assert int(sums["pixels"]) == 1
        assert metric.score(sums)["mean"] == pytest.approx(90)

    @settings(max_examples=60, deadline=None)
    @given(
        values=st.lists(st.floats(0, 180), min_size=1, max_size=30),
        bins=st.sampled_from([7, 180, 3600]),
    )
    def test_median_is_within_one_bin_of_the_exact_lower_median(self, values, bins):
        radians = torch.tensor(values, dtype=torch.float64).deg2rad()
        prediction = torch.stack([radians.cos(), radians.sin(), radians * 0])[:, None]
        label = torch.tensor([1.0, 0, 0], dtype=torch.float64)[:, None, None].expand_as(prediction)
        metric = Normals(bins=bins)
        median = metric.score(metric.measure(prediction, label))["median"]
        assert abs(median - float(torch.tensor(values).double().median())) <= 180 / bins + 1e-6

    def test_median_of_a_dense_map_is_far_more_exact_than_a_bin(self):
        metric = Normals()
        prediction, label = normal_maps(1, (3, 200, 200))
        known = torch.isfinite(label).all(dim=0)
        exact = float(angles(prediction[:, known], label[:, known]).median())
        assert metric.score(metric.measure(prediction, label))["median"] == pytest.approx(exact, abs=0.01)

    def test_nothing_valid(self):
        scores = Normals().score(Normals().measure(torch.ones(3, 2, 2), torch.full((3, 2, 2), torch.nan)))
        assert all(math.isnan(value) for value in scores.values())
