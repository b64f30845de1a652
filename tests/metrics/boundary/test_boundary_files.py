"""Files that are no boundary maps: refused by name, or read as what an option says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mtvision.cli.main import call
from mtvision.metrics.boundary.protocols import BSDS, get_boundary_protocol
from mtvision.metrics.boundary.readers import read_prediction, read_truth
from mtvision.metrics.boundary.runner import evaluate_folders, find_pairs

EDGES = np.zeros((20, 24), np.uint8)
EDGES[10] = 1
LABELS = (np.arange(EDGES.size).reshape(EDGES.shape) // 100).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (LABELS, r"must lie in 0\.\.1, or hold 0 and another value, found 0\.\.4"),
        (EDGES - 1.0, r"found -1\.\.0"),
        (np.full(EDGES.shape, np.nan), r"found nan\.\.nan"),
        (EDGES.astype(complex), "expected a map of real numbers, got complex128"),
        (EDGES.astype(str), "expected a map of real numbers, got <U"),
    ],
    ids=["label map", "negative", "NaN", "complex", "text"],
)
def test_a_ground_truth_that_is_no_edge_map(values, said, tmp_path):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{said}"):
        read_truth(tmp_path / "a.npy", BSDS)


def test_an_inverted_ground_truth_is_refused(tmp_path):
    Image.fromarray(255 * (1 - EDGES)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: 95% of the pixels are edges.*inverted"):
        read_truth(tmp_path / "a.png", BSDS)
    np.save(tmp_path / "a.npy", np.stack([EDGES, 1 - EDGES]))  # the second annotator
    with pytest.raises(ValueError, match="inverted"):
        read_truth(tmp_path / "a.npy", BSDS)
    Image.fromarray(1 - EDGES).save(tmp_path / "a.png")
    read_truth(tmp_path / "a.png", get_boundary_protocol("seism-nyud"))  # ids of two regions


@pytest.mark.parametrize("filled", [(), ("b",), ("a", "b")], ids=str)
def test_ground_truths_that_are_all_empty_are_said(filled, tmp_path, caplog):
    for name in ("a", "b"):
        for folder, array in (("truth", EDGES * (name in filled)), ("maps", EDGES)):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"{name}.npy", array.astype(np.float32))
    pairs = find_pairs(tmp_path / "maps", tmp_path / "truth", BSDS)
    evaluate_folders(pairs, BSDS.with_thresholds(3))
    said = f"{tmp_path / 'truth'}: no ground truth of the 2 images has an edge"
    assert (said in caplog.text) == (not filled)


def test_two_real_levels_are_an_edge_map(tmp_path):
    for top in (0.4, 1.0, 255.0):
        np.save(tmp_path / "a.npy", EDGES * np.float32(top))
        (found,) = read_truth(tmp_path / "a.npy", BSDS)
        assert np.array_equal(found, EDGES > 0) == (top >= 0.5)


def test_complex_predictions_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", EDGES.astype(complex))
    with pytest.raises(ValueError, match=r"a\.npy: expected a map of real numbers, got complex128"):
        read_prediction(tmp_path / "a.npy")


def test_the_option_that_a_message_names_is_there(tmp_path, capsys):
    for folder, array in (("truth", 255 * EDGES), ("maps", 50 * EDGES + 50 * EDGES[::-1])):
        array = np.minimum(array, 255)
        if folder == "maps":
            array[0, :9] = range(9)
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    words = [str(tmp_path / "maps"), str(tmp_path / "truth"), "--protocol", "bsds", "--thresholds", "5"]
    words += ["--workers", "1", "--no-cache", "--json", str(tmp_path / "o.json")]
    assert call("evaluate-boundaries", words) == 2
    told = capsys.readouterr().err
    assert "a.png: the largest number in 1 files is 50" in told
    assert "Options of predictions are given as --maps edge.scale=1000" in told
    assert call("evaluate-boundaries", [*words, "--maps", "edge.scale"]) == 2
    assert "--maps: expected key=value, got 'edge.scale'" in capsys.readouterr().err
    assert call("evaluate-boundaries", [*words, "--maps", "edge.scale=50"]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["scores"]["odsF"] > 0.5
