"""`mtvision.score` decides what arrays mean by the rules of files, and refuses what it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mtvision
from mtvision.core.naming import UnknownNameError

RNG = np.random.default_rng(0)
MASK = (RNG.random((24, 30)) > 0.8).astype(np.uint8)
SOFT = RNG.random((24, 30)).astype(np.float32)
IDS = RNG.integers(0, 3, (24, 30))
METRES = 1 + 4 * RNG.random((24, 30))
_VECTORS = RNG.normal(size=(3, 24, 30))
NORMALS = _VECTORS / np.linalg.norm(_VECTORS, axis=0)
COLOURS = np.round(127.5 * (NORMALS + 1)).astype(np.uint8)

ALIKE = {
    "edge label 0/255": ("edge", (SOFT, MASK), (SOFT, 255 * MASK), {}),
    "edge label Boolean": ("edge", (SOFT, MASK), (SOFT, MASK > 0), {}),
    "edge label real": ("edge", (SOFT, MASK), (SOFT, MASK.astype(float)), {}),
    "edge prediction 0/255": ("edge", (MASK, MASK), (255 * MASK, MASK), {}),
    "edge prediction Boolean": ("edge", (MASK, MASK), (MASK > 0, MASK), {}),
    "saliency label real": ("saliency", (SOFT, MASK), (SOFT, MASK.astype(np.float32)), {}),
    "saliency label 0/255": (
        "saliency",
        (SOFT, MASK),
        (SOFT, 255 * MASK),
        {"label.encoding": "mask"},
    ),
    "ids real": ("semseg", (IDS, IDS[::-1]), (IDS.astype(float), IDS[::-1].astype(np.float32)), {}),
    "ids (1, H, W)": ("semseg", (IDS, IDS[::-1]), (IDS[None], IDS[::-1].copy()[None]), {}),
    "millimetres": (
        "depth",
        (METRES, METRES + 1),
        (METRES, np.round(1000 * (METRES + 1)).astype(np.uint16)),
        {"label.scale": 1000},
    ),
    "predicted millimetres": (
        "depth",
        (METRES + 1, METRES),
        (1000 * (METRES + 1), METRES),
        {"prediction.scale": 1000},
    ),
    "depth bfloat16": (
        "depth",
        (torch.from_numpy(METRES).bfloat16().float(), METRES),
        (torch.from_numpy(METRES).bfloat16(), METRES),
        {},
    ),
    "normals as colours": ("normals", (NORMALS, NORMALS[:, ::-1]), (NORMALS, COLOURS[:, ::-1]), {}),
    "normals in 0..1": (
        "normals",
        (NORMALS, NORMALS[:, ::-1]),
        (NORMALS, (NORMALS[:, ::-1] + 1) / 2),
        {"label.encoding": "shifted"},
    ),
}


@pytest.mark.parametrize("case", ALIKE)
def test_the_same_map_stored_in_another_way_has_the_same_scores(case):
    task, plain, other, maps = ALIKE[case]
    options = {"num_classes": 3} if task == "semseg" else {}
    wanted = mtvision.score(*plain, task, **options)
    found = mtvision.score(*other, task, maps=maps, **options)
    exact = "colours" not in case
    assert found == pytest.approx(
        wanted, rel=2e-4 if exact else 0.05, abs=1e-5 if exact else 0.3, nan_ok=True
    )


UNCLEAR = {
    "saliency 0/255": ("saliency", SOFT, 255 * MASK, "label 0: holds 255 and no 1"),
    "edge 0, 1, 255": ("edge", SOFT, np.where(SOFT < 0.1, 255, MASK), "255 stands apart. Say ignore=255"),
    "probabilities for ids": ("semseg", SOFT, IDS, "prediction 0: semseg takes class ids"),
    "logits for ids": ("semseg", RNG.random((3, 24, 30)), IDS, "prediction 0: semseg takes class ids"),
    "label of fractions": ("semseg", IDS, SOFT, "label 0: class ids must be whole numbers"),
    "millimetres": (
        "depth",
        METRES,
        (1000 * METRES).astype(int),
        "label 0: found integers, which need scale=",
    ),
    "real millimetres": ("depth", METRES, 1000 * METRES, "label 0: found .* which are no metres"),
    "predicted millimetres": (
        "depth",
        (1000 * METRES).astype(int),
        METRES,
        "prediction 0: depth takes float maps",
    ),
    "shifted": ("normals", NORMALS, (NORMALS + 1) / 2, "label 0: .*Say encoding='shifted'"),
    "predicted colours": ("normals", COLOURS, NORMALS, "prediction 0: normals takes float maps"),
    "(H, W, 3)": ("normals", NORMALS, NORMALS.transpose(1, 2, 0), r"label 0: found \(24, 30, 3\).*transpose"),
    "a batch": ("depth", METRES[None, None], METRES[None, None], "label 0: .*without batch axis"),
    "logits for probabilities": ("edge", 8 * SOFT - 4, MASK, "prediction 0"),
    "complex": ("edge", SOFT + 1j, MASK, "prediction 0: found ndarray of complex64"),
    "text": ("depth", "a.png", "b.png", "label 0: found str of .*takes files"),
    "nothing": ("depth", None, METRES, "prediction 0: found NoneType of object"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_numbers_of_unknown_meaning_give_no_score(case):
    task, prediction, label, message = UNCLEAR[case]
    options = {"num_classes": 3} if task == "semseg" else {}
    with pytest.raises((TypeError, ValueError), match=message):
        mtvision.score(prediction, label, task, **options)


def test_all_maps_of_a_list_decide_together():
    empty = np.zeros_like(MASK)
    several = mtvision.score([SOFT, SOFT], [255 * MASK, empty], "edge")
    assert several == mtvision.score([SOFT, SOFT], [MASK, empty], "edge")
    with pytest.raises(ValueError, match="label 0: .*hold 0 and 1 and nothing else, others up to 255"):
        mtvision.score([SOFT, SOFT], [MASK, 255 * MASK], "edge")


def test_options_of_maps_are_checked():
    for maps, message in (
        ({"labels.scale": 1000}, "labels"),
        ({"label.scal": 1000}, "scal"),
        ({"prediction.ignore": 0}, "ignore"),
    ):
        with pytest.raises(UnknownNameError, match=message):
            mtvision.score(METRES, METRES, "depth", maps=maps)
    with pytest.raises(ValueError, match="scale must be above 0"):
        mtvision.score(METRES, METRES, "depth", maps={"label.scale": 0})


WRONG_OPTIONS = {
    "a number as text": ("depth", {"prediction.scale": "1000"}, "scale must be a number"),
    "infinite": ("depth", {"prediction.scale": float("inf")}, "scale must be a number"),
    "true as a number": ("depth", {"prediction.scale": True}, "scale must be a number"),
    "a mark as text": ("depth", {"label.invalid": "65535"}, "invalid must be a number or a list"),
    "a colour as text": ("normals", {"label.invalid": ["abc"]}, "invalid must be a number or a list"),
    "ids to ignore as text": ("semseg", {"label.ignore": "2"}, "ignore must be a number or a list"),
    "ids as a list": ("semseg", {"label.ids": [0, 1, 2]}, "ids must be a dict of integers"),
    "ids with fractions": ("semseg", {"label.ids": {0: 0, 1: 1.7, 2: 2}}, "ids must be a dict of integers"),
    "negative bits": ("depth", {"label.bits": -3}, "bits must be an integer between 1 and 16"),
    "two signs of an axis": ("normals", {"label.axes": ["--x", "y", "z"]}, "axes must name x, y and z"),
}
MAPS = {"depth": METRES, "normals": NORMALS, "semseg": IDS}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_options_of_a_wrong_type_are_refused_by_name(name):
    task, options, said = WRONG_OPTIONS[name]
    classes = {"num_classes": 3} if task == "semseg" else {}
    with pytest.raises(ValueError, match=f"maps= of (labels|predictions).{said}|{said}"):
        mtvision.score(MAPS[task], MAPS[task], task, maps=options, **classes)


def test_numbers_of_numpy_are_numbers():
    plain = mtvision.score(IDS, IDS, "semseg", num_classes=3, maps={"label.ignore": [1]})
    assert mtvision.score(IDS, IDS, "semseg", num_classes=3, maps={"label.ignore": np.array([1])}) == plain
    millimetres = np.round(1000 * METRES).astype(np.uint16)
    scores = mtvision.score(METRES, millimetres, "depth", maps={"label.scale": np.int64(1000)})
    assert scores["rmse"] < 0.001


def test_masks_of_masked_arrays_are_not_lost():
    masked = np.ma.masked_array(IDS, IDS == 2)
    for prediction, label in ((masked, IDS), (IDS, masked)):
        with pytest.raises(TypeError, match=r"(prediction|label) 0: found a masked array.*filled\(255\)"):
            mtvision.score(prediction, label, "semseg", num_classes=3)


def test_the_map_that_cannot_be_scored_is_named():
    with pytest.raises(ValueError, match="image 1: iou: predicted class id 30"):
        mtvision.score([IDS, IDS + 300], [IDS, IDS], "semseg", num_classes=3)
    sick = METRES.copy()
    sick[0, 0] = np.nan
    with pytest.raises(ValueError, match="prediction 1: found 1 NaN"):
        mtvision.score([METRES, sick], [METRES, METRES], "depth")


def test_a_likely_mark_in_labels_is_said(caplog):
    marked = METRES.copy()
    marked[:4] = 65.535
    mtvision.score(METRES, marked, "depth")
    assert "labels of depth: 65.535 covers" in caplog.text
