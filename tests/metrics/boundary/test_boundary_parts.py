"""Thinning, suppression, label boundaries and matching against slow obvious code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from skimage.morphology import thin as skimage_thin

from mtvision.metrics.boundary import Matcher, match, regions, seg2bmap, suppress
from mtvision.metrics.boundary import matching as matching_module
from mtvision.metrics.boundary.nms import orientation, smooth
from mtvision.metrics.boundary.thin import thin


def blobs(seed, shape=(40, 50), share=0.5):
    generator = np.random.default_rng(seed)
    coarse = generator.random((shape[0] // 4 + 1, shape[1] // 4 + 1))
    fine = np.kron(coarse, np.ones((4, 4)))[: shape[0], : shape[1]] + 0.3 * generator.random(shape)
    return fine > np.quantile(fine, 1 - share)


class TestThin:
    @pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 1.0])
    def test_equals_scikit_image(self, share):
        for seed in range(20):
            boundaries = blobs(seed, share=share)
            np.testing.assert_array_equal(thin(boundaries), skimage_thin(boundaries))

    def test_equals_scikit_image_on_noise(self):
        for seed in range(20):
            noise = np.random.default_rng(seed).random((30, 31)) < seed / 20
            np.testing.assert_array_equal(thin(noise), skimage_thin(noise))

    def test_input_survives_and_result_is_stable(self):
        boundaries = blobs(3)
        before = boundaries.copy()
        once = thin(boundaries)
        np.testing.assert_array_equal(boundaries, before)
        np.testing.assert_array_equal(thin(once), once)


def slow_suppress(strength, radius, border=5):
    """Loops, as the published description reads."""
    height, width = strength.shape
    angle = orientation(strength)

    def sample(x, y):
        x, y = min(max(x, 0), width - 1.001), min(max(y, 0), height - 1.001)
        x0, y0 = int(x), int(y)
        dx, dy = x - x0, y - y0
        return (
            strength[y0, x0] * (1 - dx) * (1 - dy)
            + strength[y0, x0 + 1] * dx * (1 - dy)
            + strength[y0 + 1, x0] * (1 - dx) * dy
            + strength[y0 + 1, x0 + 1] * dx * dy
        )

    result = np.zeros_like(strength)
    for y in range(height):
        for x in range(width):
            cos, sin = math.cos(angle[y, x]), math.sin(angle[y, x])
            neighbours = [sample(x + d * cos, y + d * sin) for d in range(-radius, radius + 1) if d != 0]
            if 1.01 * strength[y, x] >= max(neighbours):
                result[y, x] = strength[y, x]
    for y in range(height):
        for x in range(width):
            for distance in (min(y, height - 1 - y), min(x, width - 1 - x)):
                if distance < border:
                    result[y, x] *= distance / border
    return result


class TestSuppress:
    @pytest.mark.parametrize("radius", [1, 4])
    def test_equals_slow_loops(self, radius):
        for seed in range(3):
            strength = smooth(np.random.default_rng(seed).random((24, 31)).astype(np.float32), 2)
            np.testing.assert_allclose(
                suppress(strength, radius=radius), slow_suppress(strength, radius), atol=1e-6
            )

    def test_border_ramp(self):
        ones = np.ones((20, 30), dtype=np.float32)
        result = suppress(ones)
        np.testing.assert_allclose(result[10, :7], [0, 0.2, 0.4, 0.6, 0.8, 1, 1])
        np.testing.assert_allclose(result[-7:, 15], [1, 1, 0.8, 0.6, 0.4, 0.2, 0])
        assert result[1, 1] == pytest.approx(0.04)

    @pytest.mark.parametrize("vertical", [False, True])
    def test_a_smooth_ridge_becomes_a_line(self, vertical):
        rows, columns = np.mgrid[:31, :40]
        image = np.exp(-(((rows - 15 - 0.02 * (columns - 20)) / 3.0) ** 2)).astype(np.float32)
        kept = suppress(image.T if vertical else image)
        kept = kept.T if vertical else kept
        assert set(np.flatnonzero(kept[:, 20])) == {15}

    def test_a_perfectly_level_ridge_is_kept_whole_as_in_the_original(self):
        """Without any curvature along x, sign(-Oxy) is 0, and the angle 0 instead of a right angle."""
        ridge = np.exp(-(((np.arange(31) - 15) / 3.0) ** 2)).astype(np.float32)
        kept = suppress(np.repeat(ridge[:, None], 40, axis=1))
        assert (kept[1:-1, 20] > 0).all()

    def test_smoothing_keeps_the_mean_and_is_a_triangle(self):
        impulse = np.zeros((11, 11), dtype=np.float32)
        impulse[5, 5] = 1
        np.testing.assert_allclose(smooth(impulse, 1)[5, 3:8], np.array([0, 1, 2, 1, 0]) / 8, atol=1e-7)
        np.testing.assert_allclose(smooth(impulse, 4).sum(), 1, rtol=1e-5)

    def test_tiny_map(self):
        with pytest.raises(ValueError, match="at least 2"):
            suppress(np.ones((1, 5), dtype=np.float32))


class TestLabelBoundaries:
    def test_seg2bmap_equals_slow_loops(self):
        for seed in range(20):
            labels = np.random.default_rng(seed).integers(0, 3, (9, 12))
            height, width = labels.shape
            slow = np.zeros(labels.shape, dtype=bool)
            for y in range(height):
                for x in range(width):
                    for dy, dx in ((0, 1), (1, 0), (1, 1)):
                        if y + dy < height and x + dx < width:
                            slow[y, x] |= labels[y, x] != labels[y + dy, x + dx]
            np.testing.assert_array_equal(seg2bmap(labels), slow)
            assert not seg2bmap(labels)[-1, -1]

    def test_regions_split_classes_and_count_label_zero(self):
        labels = np.array([[0, 7, 0], [7, 7, 0], [0, 7, 7]])
        numbered = regions(labels)
        assert len(np.unique(numbered)) == 4
        assert numbered[0, 0] != numbered[0, 2] != numbered[2, 0]
        assert numbered[0, 1] == numbered[2, 2]

    def test_an_edge_image_as_segmentation_gives_a_band(self):
        edge = np.zeros((8, 8), dtype=int)
        edge[:, 4] = 255
        assert sorted(set(np.nonzero(seg2bmap(edge))[1])) == [3, 4]


def dense_optimum(prediction, truth, radius):
    """Cost, matches: `linear_sum_assignment` on the full matrix, one dummy per row of the smaller side."""
    a, b = np.argwhere(prediction), np.argwhere(truth)
    if len(a) > len(b):
        a, b = b, a
    outlier = math.ceil(100 * radius * 100)
    cost = np.full((len(a), len(b) + len(a)), 1e9)
    distance = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) if len(a) else np.zeros((0, len(b)))
    cost[:, : len(b)] = np.where(distance <= radius, np.floor(distance * 100 + 0.5), 1e9)
    cost[np.arange(len(a)), len(b) + np.arange(len(a))] = outlier
    rows, columns = linear_sum_assignment(cost)
    matched = columns < len(b)
    return int(cost[rows, columns][matched].sum()), int(matched.sum())


class TestMatching:
    @pytest.mark.parametrize("radius", [1.0, 2.3, 5.0])
    def test_equals_brute_force_on_hundreds_of_maps(self, radius):
        generator = np.random.default_rng(int(radius * 10))
        for _ in range(150):
            shape = tuple(generator.integers(1, 22, 2))
            prediction = generator.random(shape) < generator.uniform(0, 0.35)
            truth = generator.random(shape) < generator.uniform(0, 0.35)
            found = match(prediction, truth, radius)
            assert (found.cost, int(found.truth.sum())) == dense_optimum(prediction, truth, radius)
            assert found.truth.sum() == found.prediction.sum()
            assert not (found.truth & ~truth).any()
            assert not (found.prediction & ~prediction).any()

    def test_crowded_maps_take_the_second_solution(self, monkeypatch):
        """Far fewer partners than pixels on both sides: shared dummies run out."""
        calls = []
        original = matching_module._solve_with_dummies

        def spy(graph, outlier, groups, each):
            calls.append(each)
            return original(graph, outlier, groups, each)

        monkeypatch.setattr(matching_module, "_solve_with_dummies", spy)
        prediction, truth = np.zeros((40, 60), dtype=bool), np.zeros((40, 60), dtype=bool)
        prediction[5:12, 5:12] = True  # many predictions, one true pixel in reach of each
        truth[8, 8] = True
        truth[25:33, 25:33] = True
        prediction[29, 29] = True
        found = match(prediction, truth, 1.5)
        assert (found.cost, int(found.truth.sum())) == dense_optimum(prediction, truth, 1.5) == (0, 2)
        dense = np.random.default_rng(0).random((2, 30, 30)) < [[[0.3]], [[0.3]]]
        dense[0, ::4] = False
        found = match(dense[0], dense[1], 1.0)
        assert (found.cost, int(found.truth.sum())) == dense_optimum(dense[0], dense[1], 1.0)
        assert 1 in calls

    def test_symmetry_and_identity(self):
        generator = np.random.default_rng(4)
        a, b = generator.random((2, 30, 40)) < 0.1
        assert match(a, b, 3.0).cost == match(b, a, 3.0).cost
        same = match(a, a, 3.0)
        np.testing.assert_array_equal(same.truth, a)
        assert same.cost == 0

    def test_distance_limit_is_inclusive(self):
        a, b = np.zeros((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
        a[0, 0] = b[3, 4] = True
        assert match(a, b, 5.0).truth.any()
        assert not match(a, b, 4.999).truth.any()

    def test_one_to_one(self):
        prediction, truth = np.zeros((3, 9), dtype=bool), np.zeros((3, 9), dtype=bool)
        prediction[1, 2:7] = True
        truth[1, 4] = True
        found = match(prediction, truth, 4.0)
        assert np.argwhere(found.prediction).tolist() == [[1, 4]]

    def test_empty_maps(self):
        nothing, something = np.zeros((4, 5), dtype=bool), np.ones((4, 5), dtype=bool)
        for pair in ((nothing, something), (something, nothing), (nothing, nothing)):
            found = match(*pair, 2.0)
            assert not found.prediction.any()
            assert found.cost == 0

    def test_errors(self):
        with pytest.raises(ValueError, match=r"\(4, 4\).*\(5, 5\)"):
            Matcher(np.ones((5, 5), dtype=bool), 1.0).match(np.ones((4, 4), dtype=bool))
        for radius in (math.nan, math.inf, -1.0):
            with pytest.raises(ValueError, match="finite"):
                Matcher(np.ones((5, 5), dtype=bool), radius)
