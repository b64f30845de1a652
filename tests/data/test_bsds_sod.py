"""BSDS with saliency: annotators, masks, preparation, and the benchmark against its own files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from mtvision.core.files.foreign import DecodeError
from mtvision.data import BSDSSaliency
from mtvision.data.bsds_sod import pack_annotators, read_mask, unpack_annotators
from mtvision.data.prepare import prepare_bsds_sod
from mtvision.losses.edge import EdgeLoss, ShareEdgeLoss
from mtvision.metrics.boundary.aggregate import summarize
from mtvision.metrics.boundary.counts import count_image
from mtvision.metrics.boundary.protocols import BSDS
from mtvision.metrics.boundary.readers import read_prediction, read_truth
from mtvision.metrics.edge import AnnotatedEdge
from mtvision.metrics.sums import total

QUIET = {"progress": False, "expected": None}
SIZE = (20, 30)


def write_truth(path, maps):
    cells = np.empty((1, len(maps)), dtype=object)
    for index, drawn in enumerate(maps):
        cells[0, index] = {"Segmentation": drawn.astype(np.uint16), "Boundaries": drawn.astype(np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": cells})


def lines(count):
    """One column each, the first annotator's at 5."""
    maps = np.zeros((count, *SIZE), bool)
    for index in range(count):
        maps[index, :, 5 + index] = True
    return maps


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "downloads"
    rng = np.random.default_rng(0)
    for split, names in (("train", ("100", "101")), ("val", ("200",))):
        for position, name in enumerate(names):
            image = root / "BSDS500/data/images" / split / f"{name}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(image)
            write_truth(root / "BSDS500/data/groundTruth" / split / f"{name}.mat", lines(5 + position))
            mask = np.zeros(SIZE, bool)
            mask[5:10] = True
            stored = Image.fromarray(mask) if position == 0 else Image.fromarray(mask.astype(np.uint8) * 255)
            folder = root / "sal_eval_toolbox/tools/GroundTruth/SOD"
            folder.mkdir(parents=True, exist_ok=True)
            stored.save(folder / f"{name}.png")  # of 1 and of 8 bits
    return root


def test_repositories_become_the_loaders_folder(source, tmp_path):
    outcome = prepare_bsds_sod(source, tmp_path / "out", **QUIET)
    assert (outcome.problems, outcome.written, outcome.dataset) == ([], 9, "BSDSSaliency")
    assert prepare_bsds_sod(source, tmp_path / "out", **QUIET).kept == 9
    data = BSDSSaliency(tmp_path / "out", split="train", check=False)
    assert data.ids == ["100", "101"]
    for index, count in enumerate((5, 6)):
        raw = data.read(index)
        data.validate(index, raw)
        assert raw.labels["edge"].shape == (*SIZE, 10)
        assert np.array_equal(raw.labels["edge"][..., 1 : 1 + count].transpose(2, 0, 1), lines(count))
        assert raw.labels["edge"][..., 1 + count :].max() == 0
        assert np.allclose(raw.labels["edge"][0, 5, 0], 1 / count)
        assert np.flatnonzero(raw.labels["saliency"][:, 0]).tolist() == [5, 6, 7, 8, 9]


def test_what_is_missing_or_empty_is_named(source, tmp_path):
    truth = source / "BSDS500/data/groundTruth/train"
    write_truth(truth / "100.mat", [])
    (source / "sal_eval_toolbox/tools/GroundTruth/SOD/101.png").unlink()
    (source / "BSDS500/data/groundTruth/val/200.mat").unlink()
    outcome = prepare_bsds_sod(source, tmp_path / "out", progress=False)
    assert len(outcome.problems) == 5
    assert "100.mat: 'groundTruth' is empty; at least one annotator is needed" in outcome.problems[0]
    assert "101.jpg: its label SOD/101.png is missing" in outcome.problems[1]
    assert "200.jpg: its label groundTruth/val/200.mat is missing" in outcome.problems[2]
    assert outcome.problems[3] == "BSDS with saliency train: 0 images, the published split has 200."
    drawn = np.concatenate([lines(2), np.zeros((1, *SIZE), bool)])
    for maps, found in ((drawn, "2 of 3"), (drawn[2:], "0 of 1"), (lines(10), "10 of 10")):
        write_truth(truth / "100.mat", maps)
        text = prepare_bsds_sod(source, tmp_path / "b", **QUIET).problems[0]
        assert f"{found} annotators drew boundaries, expected 1 to 9 and all of them" in text
    write_truth(truth / "100.mat", np.broadcast_to(np.eye(5, dtype=bool), (2, 5, 5)))
    text = prepare_bsds_sod(source, tmp_path / "c", **QUIET).problems[0]
    assert "100.mat: 5x5 pixels, its photograph has 20x30" in text
    with pytest.raises(FileNotFoundError, match=r"no images/train/\*.jpg.*github.com/BIDS/BSDS500"):
        prepare_bsds_sod(truth, tmp_path / "d", **QUIET)


@pytest.mark.parametrize("maps", [lines(1), lines(9)])
def test_annotators_survive_packing(tmp_path, maps):
    label = unpack_annotators(tmp_path / "x.png", pack_annotators(maps))
    assert np.array_equal(label[..., 1 : 1 + len(maps)].transpose(2, 0, 1), maps)


@pytest.mark.parametrize("number", [0, 512])
def test_a_file_without_annotators_is_refused(tmp_path, number):
    with pytest.raises(DecodeError, match=r"x.png: the largest number is .*1 to 9 annotators"):
        unpack_annotators(tmp_path / "x.png", np.full((4, 4), number, np.uint16))


@pytest.mark.parametrize("top", [1, 15, 255, 65535])
def test_masks_of_any_depth_are_cut_at_half(tmp_path, top):
    values = np.array([[0, top // 2, top]], np.uint16 if top > 255 else np.uint8)
    cv2.imwrite(str(tmp_path / "m.png"), values)
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 0, 1]]


def test_the_loss_is_that_of_the_share():
    label = torch.rand(2, 10, 8, 8)
    logits = torch.randn(2, 1, 8, 8)
    assert torch.equal(ShareEdgeLoss()(logits, label), EdgeLoss()(logits, label[:, :1]))


def label_of(maps):
    packed = pack_annotators(maps)
    return torch.from_numpy(unpack_annotators("x.png", packed)).permute(2, 0, 1)


def test_the_metric_is_the_benchmark_with_all_annotators():
    rng = np.random.default_rng(1)
    maps, prediction = rng.random((3, 40, 50)) < 0.05, rng.random((40, 50)).astype(np.float32)
    metric = AnnotatedEdge(thresholds=5, suppression=0)
    sums = metric.measure(torch.from_numpy(prediction)[None], label_of(list(maps)))
    expected = count_image(prediction, list(maps), BSDS.with_thresholds(5))
    for name in ("matched_truth", "truth", "matched_prediction", "prediction"):
        assert sums[name].tolist() == getattr(expected, name).tolist()
    assert set(metric.score(sums)) == {"odsF", "oisF", "AP", "R50"}


def test_padding_changes_nothing_and_no_label_is_no_score():
    label = label_of(list(lines(3)))
    prediction = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    metric = AnnotatedEdge(thresholds=3)
    padded = torch.nn.functional.pad(label, (0, 4, 0, 6), value=float("nan"))
    wide = torch.nn.functional.pad(prediction, (0, 4, 0, 6), value=0.7)
    first, second = metric.measure(prediction, label), metric.measure(wide, padded)
    assert all(torch.equal(first[name], second[name]) for name in first)
    nothing = metric.measure(prediction, torch.full_like(label, float("nan")))
    assert not metric.has_label(nothing)
    with pytest.raises(ValueError, match=r"expected \(1 \+ annotators, H, W\)"):
        metric.measure(prediction, label[:1])


@pytest.mark.slow
def test_the_metric_gives_the_published_scores_of_the_benchmarks_own_test(real_data):
    """`test_2` of BSDS500's tool, whose matching is approximate: an exact one is 1e-4 above in F.

    In the tool's double precision, 85/255 and 170/255 lie below its thresholds 1/3 and 2/3. The metric takes
    float32, where they meet them, so these values are moved below by hand. Without that, AP is .30685.
    """
    folder, sums = real_data / "bsds_bench", []
    metric = AnnotatedEdge(thresholds=5, suppression=0)
    for file in sorted((folder / "png").glob("*.png")):
        maps = read_truth(folder / "groundTruth" / f"{file.stem}.mat", BSDS)
        strengths = torch.from_numpy(read_prediction(file))[None]
        levels = (255 * strengths).round()
        strengths -= 1e-6 * ((levels == 85) | (levels == 170))
        sums.append(metric.measure(strengths, label_of(maps)))
    scores = metric.score(total(sums))
    assert scores["odsF"] == pytest.approx(0.704628, abs=2e-4)
    assert scores["oisF"] == pytest.approx(0.708698, abs=2e-4)
    assert scores["AP"] == pytest.approx(0.307627, abs=2e-4)


@pytest.mark.slow
def test_the_metric_agrees_with_the_tool_on_a_photograph_of_bsds(real_data):
    folder = real_data / "bsds_bench"
    prediction_file, truth = folder / "png" / "2018.png", folder / "groundTruth" / "2018.mat"
    maps, prediction = read_truth(truth, BSDS), read_prediction(prediction_file)
    metric = AnnotatedEdge(thresholds=5, suppression=0)
    scores = metric.score(metric.measure(torch.from_numpy(prediction)[None], label_of(maps)))
    protocol = BSDS.with_thresholds(5)
    assert scores == summarize([count_image(prediction, maps, protocol)], protocol).scores()
