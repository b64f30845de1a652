"""The BSDS benchmark's own tests, its aggregation, folders, resuming and the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mtvision.cli.results.evaluate_boundaries import main
from mtvision.core.naming import UnknownNameError
from mtvision.metrics.boundary import (
    BOUNDARY_PROTOCOLS,
    ImageCounts,
    count_image,
    evaluate_folders,
    find_pairs,
    get_boundary_protocol,
    read_prediction,
    read_truth,
    seg2bmap,
    summarize,
)
from mtvision.metrics.boundary import runner as runner_module
from mtvision.metrics.boundary.aggregate import average_precision, best_point, recall_at_half
from mtvision.metrics.boundary.counts import prepare
from mtvision.metrics.boundary.protocols import SEISM_THRESHOLDS, even_thresholds
from mtvision.metrics.boundary.thin import thin

BSDS = get_boundary_protocol("bsds")


@pytest.fixture(scope="module")
def bsds_bench(request):
    from pathlib import Path

    folder = Path(__file__).resolve().parents[4] / "shared" / "data" / "bsds_bench"
    if not folder.is_dir():
        pytest.skip("the folder of small real samples is not beside this checkout")
    return folder


@pytest.fixture(scope="module")
def bsds_result(bsds_bench):
    protocol = BSDS.with_thresholds(5)
    return evaluate_folders(find_pairs(bsds_bench / "png", bsds_bench / "groundTruth", protocol), protocol)


class TestBsdsBench:
    def test_published_scores_of_test_2(self, bsds_result):
        scores = bsds_result.summary.scores()
        assert scores["odsF"] == pytest.approx(0.7047, abs=2e-4)
        assert scores["oisF"] == pytest.approx(0.7088, abs=3e-4)
        assert scores["AP"] == pytest.approx(0.3076, abs=3e-4)

    @pytest.mark.parametrize("test", ["test_1", "test_2"])
    def test_sums_are_strictly_those_behind_the_shipped_files(self, bsds_bench, bsds_result, test):
        """The files hold R = cntR / sumR and P = cntP / sumP to 6 digits. With the sums found here, and with
        hardly any other, each is the ratio of a whole number to the sum."""
        table = np.loadtxt(bsds_bench / test / "eval_bdry_thr.txt")
        totals = [
            np.sum([getattr(c, name) for c in bsds_result.counts], axis=0) for name in ("truth", "prediction")
        ]
        rows = [(*table[t, 1:3], totals[0][t], totals[1][t]) for t in range(5)]
        images = np.loadtxt(bsds_bench / test / "eval_bdry_img.txt")
        for image, counts in zip(images, bsds_result.counts, strict=True):
            t = int(np.argmin(np.abs(np.array(bsds_result.protocol.thresholds) - image[1])))
            rows.append((*image[2:4], counts.truth[t], counts.prediction[t]))
        for recall, precision, true, found in rows:
            assert f"{round(recall * true) / true:.6g}" == f"{recall:.6g}"
            assert f"{round(precision * found) / found:.6g}" == f"{precision:.6g}"

    def test_recall_and_precision_at_every_threshold(self, bsds_bench, bsds_result):
        """Never below the reference's approximate matching by more than its spread, never far above."""
        table = np.loadtxt(bsds_bench / "test_2" / "eval_bdry_thr.txt")
        summary = bsds_result.summary
        assert np.all(np.abs(summary.recall - table[:, 1]) < 6e-4)
        assert np.all(np.abs(summary.precision - table[:, 2]) < 1e-3)
        np.testing.assert_allclose(summary.thresholds, table[:, 0], atol=1e-6)

    @pytest.mark.parametrize("test", ["test_1", "test_2"])
    def test_aggregation_of_the_shipped_curve(self, bsds_bench, test):
        thresholds, recall, precision, f = np.loadtxt(bsds_bench / test / "eval_bdry_thr.txt").T
        expected = np.loadtxt(bsds_bench / test / "eval_bdry.txt")
        best = best_point(thresholds, recall, precision, interpolate=True)
        assert [best.threshold, best.recall, best.precision, best.f] == pytest.approx(
            expected[:4], abs=1.1e-6
        )
        assert average_precision(recall, precision) == pytest.approx(expected[7], abs=1e-6)
        np.testing.assert_allclose(2 * recall * precision / (recall + precision), f, atol=1e-6)

    def test_a_contour_map_scores_like_its_image(self, bsds_bench, bsds_result):
        """`ucm2` is the map at double size of which the PNG is the 8-bit copy."""
        for path in sorted((bsds_bench / "ucm2").glob("*.mat")):
            contours = read_prediction(path)
            image = read_prediction(bsds_bench / "png" / f"{path.stem}.png")
            assert contours.shape == image.shape
        protocol = bsds_result.protocol
        result = evaluate_folders(
            find_pairs(bsds_bench / "ucm2", bsds_bench / "groundTruth", protocol), protocol
        )
        assert result.summary.ods.f == pytest.approx(bsds_result.summary.ods.f, abs=5e-3)

    def test_another_formula_for_the_thresholds_would_miss_the_published_ap(self, bsds_bench):
        """51/255 and 1/5 meet at 8 bits: the protocol's formula is part of its definition."""
        naive = np.arange(1, 6) / 6
        assert tuple(naive) != even_thresholds(5)
        assert even_thresholds(5)[1] == 1 / 6 + (1 - 1 / 6 - 1 / 6) / 4


def counts(*columns):
    return ImageCounts(*(np.array(column) for column in columns))


class TestAggregation:
    first = counts([4, 2, 0], [8, 8, 8], [4, 2, 0], [10, 2, 0])
    second = counts([3, 3, 1], [4, 4, 4], [3, 3, 1], [12, 4, 1])

    def test_by_hand_without_interpolation(self):
        protocol = replace(BSDS, thresholds=(0.2, 0.5, 0.8), interpolate=False)
        summary = summarize([self.first, self.second], protocol)
        np.testing.assert_allclose(summary.recall, [7 / 12, 5 / 12, 1 / 12])
        np.testing.assert_allclose(summary.precision, [7 / 22, 5 / 6, 1])
        assert summary.ods.threshold == 0.5
        assert summary.ods.f == pytest.approx(2 * 5 / (12 + 6))
        # image 1: F = 8/18, 4/10, 0 -> first threshold; image 2: 6/16, 6/8, 2/5 -> second
        assert summary.ois.recall == pytest.approx((4 + 3) / (8 + 4))
        assert summary.ois.precision == pytest.approx((4 + 3) / (10 + 4))
        assert [point.threshold for point in summary.images] == [0.2, 0.5]

    def test_interpolation_finds_points_between(self):
        thresholds, recall, precision = np.array([[0.2, 0.8], [1.0, 0.5], [0.5, 1.0]])
        best = best_point(thresholds, recall, precision, interpolate=True)
        assert best.f == pytest.approx(0.75, abs=1e-4)
        assert best.threshold == pytest.approx(0.5, abs=0.01)
        assert best_point(thresholds, recall, precision, interpolate=False).f == pytest.approx(2 / 3)

    def test_empty_counts_by_convention(self):
        nothing = counts([0], [0], [0], [5]), counts([0], [6], [0], [0])
        for protocol, expected in (("bsds", [(0, 0), (0, 0)]), ("seism-nyud", [(1, 0), (0, 1)])):
            rule = replace(get_boundary_protocol(protocol), thresholds=(0.5,))
            points = [summarize([image], rule) for image in nothing]
            assert [(s.recall[0], s.precision[0]) for s in points] == expected
            assert [s.ods.f for s in points] == [0, 0]

    def test_average_precision_is_the_area(self):
        assert average_precision(np.array([0.0, 1.0]), np.array([1.0, 1.0])) == pytest.approx(1.01)
        assert average_precision(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx(0.505)
        assert average_precision(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == 0

    def test_recall_at_half(self):
        assert recall_at_half(np.array([1.0, 0.5]), np.array([0.0, 1.0])) == pytest.approx(0.75)
        assert recall_at_half(np.array([1.0, 0.5]), np.array([0.6, 1.0])) == 1.0
        assert np.isnan(recall_at_half(np.array([1.0, 0.5]), np.array([0.2, 0.3])))

    def test_wrong_number_of_thresholds(self):
        with pytest.raises(ValueError, match="3 thresholds do not fit the protocol's 99"):
            summarize([self.first], BSDS)


class TestProtocols:
    def test_thresholds(self):
        assert len(SEISM_THRESHOLDS) == 101
        assert SEISM_THRESHOLDS[:3] == (0.001, 0.01, 0.02)
        assert SEISM_THRESHOLDS[-2:] == (0.99, 0.999)
        np.testing.assert_allclose(BSDS.thresholds, np.arange(1, 100) / 100)
        assert len(get_boundary_protocol("seism-nyud").with_thresholds(9).thresholds) == 9
        assert get_boundary_protocol("seism-nyud").with_thresholds(101).thresholds == SEISM_THRESHOLDS

    def test_strictness(self):
        """51/255 = .2: kept by `>=`, dropped by `>`."""
        image = np.zeros((20, 20))
        image[10] = 51 / 255
        truth = [image > 0]
        at = replace(BSDS, thresholds=(0.2,))
        assert count_image(image, truth, at).prediction == [20]
        assert count_image(image, truth, replace(at, strict=True)).prediction == [0]

    def test_quantisation_floors(self):
        flat = replace(BSDS, quantize=True)
        np.testing.assert_array_equal(prepare(np.full((4, 4), 0.9999), flat), np.full((4, 4), 254 / 255))

    def test_input_survives(self):
        image = np.random.default_rng(0).random((30, 30)).astype(np.float32)
        before = image.copy()
        for protocol in BOUNDARY_PROTOCOLS.values():
            count_image(image, [image > 0.9], protocol.with_thresholds(3))
        np.testing.assert_array_equal(image, before)

    def test_skipped_thresholds_equal_counted_ones(self):
        """A map with three values: thresholds between them give the counts of a direct evaluation."""
        image = np.kron(np.random.default_rng(1).integers(0, 3, (8, 8)), np.ones((5, 5))) / 2
        truth = [thin(seg2bmap(np.kron(np.random.default_rng(2).integers(0, 2, (8, 8)), np.ones((5, 5)))))]
        many = count_image(image, truth, BSDS)
        for index in (0, 30, 49, 50, 98):
            alone = count_image(image, truth, replace(BSDS, thresholds=(BSDS.thresholds[index],)))
            assert [getattr(many, n)[index] for n in vars(many)] == [
                getattr(alone, n)[0] for n in vars(alone)
            ]

    def test_two_annotators(self):
        image = np.zeros((20, 20))
        image[5], image[12] = 1, 1
        first, second = image > 2, image > 2
        first[5] = second[5] = True
        second[16, :10] = True
        got = count_image(image, [first, second], replace(BSDS, thresholds=(0.5,)))
        assert (got.truth, got.matched_truth, got.prediction, got.matched_prediction) == (50, 40, 40, 20)

    def test_an_empty_prediction_matches_nothing(self):
        truth = np.eye(12, dtype=bool)
        got = count_image(np.zeros((12, 12)), [truth, truth], BSDS)
        thresholds = len(BSDS.thresholds)
        for name, expected in vars(got).items():
            assert expected.tolist() == [24 if name == "truth" else 0] * thresholds, name

    def test_errors(self):
        with pytest.raises(ValueError, match="10x10 pixels but the ground truth 9x10"):
            count_image(np.zeros((10, 10)), [np.zeros((9, 10), dtype=bool)], BSDS)
        with pytest.raises(ValueError, match=r"probabilities in 0\.\.1"):
            count_image(np.full((4, 4), 2.0), [np.zeros((4, 4), dtype=bool)], BSDS)
        with pytest.raises(ValueError, match="at least one annotator"):
            count_image(np.zeros((4, 4)), [], BSDS)
        with pytest.raises(ValueError, match="max_distance"):
            replace(BSDS, max_distance=11)
        with pytest.raises(UnknownNameError, match="seism-nyud"):
            get_boundary_protocol("seism")


def write_scene(folder, number=3, size=(32, 40)):
    """Predictions as PNG and labels as PNG: squares whose border is predicted, with noise."""
    predictions, truths = folder / "predictions", folder / "truths"
    predictions.mkdir(parents=True)
    truths.mkdir()
    for index in range(number):
        generator = np.random.default_rng(index)
        labels = np.zeros(size, dtype=np.uint8)
        labels[8 : 20 + index, 10:28] = 3
        labels[22:28, 3:9] = 7
        strength = np.clip(0.8 * seg2bmap(labels) + 0.2 * generator.random(size), 0, 1)
        Image.fromarray((strength * 255).astype(np.uint8)).save(predictions / f"{index:03d}.png")
        Image.fromarray(labels).save(truths / f"{index:03d}.png")
    return predictions, truths


class TestFolders:
    protocol = replace(get_boundary_protocol("seism-pascal").with_thresholds(5), images=None)

    def test_formats_agree(self, tmp_path):
        predictions, truths = write_scene(tmp_path, number=1)
        labels = np.array(Image.open(truths / "000.png"))
        image = np.array(Image.open(predictions / "000.png"))
        expected = thin(seg2bmap(labels))
        np.save(tmp_path / "labels.npy", labels.astype(np.int32))
        savemat(tmp_path / "labels.mat", {"LabelMap": labels.astype(float)})
        cell = np.empty((1, 1), dtype=object)
        cell[0, 0] = {"Segmentation": labels, "Boundaries": expected}
        savemat(tmp_path / "bsds.mat", {"groundTruth": cell})
        palette = Image.fromarray(labels, mode="P")
        palette.putpalette([255 - i // 3 for i in range(768)])
        palette.save(tmp_path / "palette.png")
        for name in ("labels.npy", "labels.mat", "bsds.mat", "palette.png"):
            (found,) = read_truth(tmp_path / name, self.protocol)
            np.testing.assert_array_equal(found, expected, err_msg=name)
        Image.fromarray(expected.astype(np.uint8) * 255).save(tmp_path / "edge.png")
        np.save(tmp_path / "edge.npy", np.stack([expected, expected]))
        for name, annotators in (("edge.png", 1), ("edge.npy", 2), ("bsds.mat", 1)):
            found = read_truth(tmp_path / name, BSDS)
            assert len(found) == annotators
            np.testing.assert_array_equal(found[-1], expected, err_msg=name)
        np.save(tmp_path / "p.npy", image / 255)
        Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / "p16.png")
        doubled = np.zeros((2 * image.shape[0] + 1, 2 * image.shape[1] + 1))
        doubled[2::2, 2::2] = image / 255
        savemat(tmp_path / "p.mat", {"ucm2": doubled})
        with pytest.raises(ValueError, match="two values"):
            read_truth(truths / "000.png", BSDS)
        for name in ("p.npy", "p16.png", "p.mat"):
            np.testing.assert_allclose(read_prediction(tmp_path / name), image / 255, atol=1e-12)

    def test_edge_image_as_segmentation_on_nyud(self, tmp_path):
        edge = np.zeros((30, 30), dtype=np.uint8)
        edge[:, 12] = 255
        Image.fromarray(edge).save(tmp_path / "edge.png")
        (found,) = read_truth(tmp_path / "edge.png", get_boundary_protocol("seism-nyud"))
        np.testing.assert_array_equal(found, thin(seg2bmap(edge)))

    def test_processes_and_memory_change_nothing(self, tmp_path):
        predictions, truths = write_scene(tmp_path)
        pairs = find_pairs(predictions, truths, self.protocol)
        alone = evaluate_folders(pairs, self.protocol)
        seen = []
        parallel = evaluate_folders(
            pairs, self.protocol, workers=2, cache=tmp_path / "cache", progress=seen.append
        )
        again = evaluate_folders(pairs, self.protocol, cache=tmp_path / "cache")
        assert alone.as_json() == parallel.as_json() == again.as_json()
        assert (alone.reused, parallel.reused, again.reused) == (0, 0, 3)
        assert seen == [1, 2, 3]
        assert alone.summary.ods.f > 0.9

    def test_resuming_counts_only_what_is_missing_or_changed(self, tmp_path, monkeypatch):
        predictions, truths = write_scene(tmp_path)
        cache = tmp_path / "cache"
        pairs = find_pairs(predictions, truths, self.protocol)
        evaluate_folders(pairs[:1], self.protocol, cache=cache)
        calls = []
        original = runner_module.count_image
        monkeypatch.setattr(runner_module, "count_image", lambda *args: calls.append(1) or original(*args))
        evaluate_folders(pairs, self.protocol, cache=cache)
        assert len(calls) == 2
        (predictions / "001.png").write_bytes((predictions / "002.png").read_bytes())  # changed prediction
        (cache / "002.npz").write_bytes(b"PK half a file")  # crashed while writing
        evaluate_folders(pairs, self.protocol, cache=cache)
        assert len(calls) == 4
        evaluate_folders(pairs, replace(self.protocol, interpolate=True, title="x"), cache=cache)
        assert len(calls) == 4
        evaluate_folders(pairs, replace(self.protocol, max_distance=0.02), cache=cache)
        assert len(calls) == 7

    def test_errors(self, tmp_path):
        predictions, truths = write_scene(tmp_path)
        with pytest.raises(ValueError, match=r"found 3 images, protocol seism-nyud has 654.*--subset"):
            find_pairs(predictions, truths, get_boundary_protocol("seism-nyud"))
        assert len(find_pairs(predictions, truths, get_boundary_protocol("seism-nyud"), subset=True)) == 3
        with pytest.raises(FileNotFoundError, match="1 of 1 images have no ground truth: nothing"):
            find_pairs(predictions, truths, self.protocol, ids=["nothing"])
        with pytest.raises(FileNotFoundError, match="no such folder"):
            find_pairs(tmp_path / "none", truths, self.protocol)
        (predictions / "001.png").unlink()
        with pytest.raises(FileNotFoundError, match="1 of 3 images have no prediction: 001"):
            find_pairs(predictions, truths, self.protocol)
        Image.fromarray(np.zeros((32, 39), dtype=np.uint8)).save(predictions / "001.png")
        pairs = find_pairs(predictions, truths, self.protocol)
        with pytest.raises(ValueError, match="image '001': the prediction is 32x39 pixels but the ground"):
            evaluate_folders(pairs, self.protocol)
        np.save(predictions / "002.npy", np.zeros((32, 40)))
        with pytest.raises(ValueError, match=r"both 002\.npy and 002\.png"):
            find_pairs(predictions, truths, self.protocol)

    def test_unreadable_files(self, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"not an image")
        with pytest.raises(ValueError, match=r"bad\.png: cannot be read"):
            read_prediction(tmp_path / "bad.png")
        savemat(tmp_path / "other.mat", {"edges": np.eye(3)})
        with pytest.raises(ValueError, match="must hold 'ucm2', found 'edges'"):
            read_prediction(tmp_path / "other.mat")
        with pytest.raises(ValueError, match="must hold 'groundTruth', found 'edges'"):
            read_truth(tmp_path / "other.mat", BSDS)
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
        with pytest.raises(ValueError, match="one channel"):
            read_prediction(tmp_path / "colour.png")
        np.save(tmp_path / "logits.npy", np.full((3, 3), -2.0))
        with pytest.raises(ValueError, match="apply the sigmoid"):
            read_prediction(tmp_path / "logits.npy")


class TestCommandLine:
    def test_json_and_table(self, tmp_path, capsys):
        predictions, truths = write_scene(tmp_path)
        out = tmp_path / "results" / "odsf.json"
        arguments = [str(predictions), str(truths), "--protocol", "seism-pascal", "--thresholds", "7"]
        arguments += ["--workers", "1", "--subset", "--json", str(out)]
        assert main(arguments) == 0
        text = capsys.readouterr().out
        result = json.loads(out.read_text())
        assert f"{result['scores']['odsF']:.4f}" in text
        assert "a part of the protocol's 2498 images" in text
        assert result["images"] == 3
        assert result["complete"] is False
        assert len(result["curve"]["threshold"]) == 7
        assert set(result["per_image"]) == {"000", "001", "002"}
        assert len(list((tmp_path / "results" / "odsf.counts").glob("*.npz"))) == 3
        assert main([*arguments[:-1], "-", "--cache", str(tmp_path / "results" / "odsf.counts")]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == result  # JSON and nothing else
        assert "3 of 3 images were counted before" in err

    @pytest.mark.parametrize("place", [".", "../ImageSets/Context", None])
    def test_the_published_list_is_found_or_missed(self, tmp_path, capsys, place, monkeypatch):
        predictions, truths = write_scene(tmp_path)
        short = replace(get_boundary_protocol("seism-pascal").with_thresholds(3), images=2)
        monkeypatch.setitem(BOUNDARY_PROTOCOLS, "seism-pascal", short)
        arguments = [str(predictions), str(truths), "--protocol", "seism-pascal", "--workers", "1"]
        if place is None:
            with pytest.raises(FileNotFoundError, match=r"test_new.txt, the list of the 2 images.*--images"):
                main(arguments)
            return
        (truths / place).mkdir(parents=True, exist_ok=True)
        (truths / place / "test_new.txt").write_text("002\n000\n")
        assert main(arguments) == 0
        assert "2 images" in capsys.readouterr().out

    def test_list_of_images(self, tmp_path, capsys):
        predictions, truths = write_scene(tmp_path)
        (tmp_path / "list.txt").write_text("002\n000\n\n")
        arguments = [
            str(predictions),
            str(truths),
            "--protocol",
            "mti-pascal",
            "--thresholds",
            "3",
            "--no-cache",
        ]
        assert main([*arguments, "--subset", "--workers", "1", "--images", str(tmp_path / "list.txt")]) == 0
        assert "2 images" in capsys.readouterr().out
