"""What is written: never over anything, and with the values that the network gave."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import data_problems as problems
import numpy as np
import pytest
from people import write_photo
from pycocotools import mask as coco_mask

from mtvision.core.instances import BASE
from mtvision.core.naming import UnknownNameError
from mtvision.evaluation.predict.inputs import find_inputs
from mtvision.evaluation.predict.names import output_names
from mtvision.evaluation.predict.outputs import KINDS, Places, check_outputs, parse_kinds
from mtvision.evaluation.predict.statistics import mean_statistics, statistics
from mtvision.evaluation.predict.writing import CocoFiles, as_png
from mtvision.protocols.tasks import depth, edge, instance, normals, semseg
from mtvision.visualize.overlays import overlay

TASKS = (semseg(["ground", "disc"]), depth(), normals(), edge(), instance(["car", "cat"]))


def check(sources, out, kinds, protected=(), overwrite=False):
    places = Places(out, TASKS, kinds)
    named = zip(sources, output_names(sources), strict=True)
    planned = {source.text: places.planned(source, name) for source, name in named}
    check_outputs(planned, [*protected, *(source.path for source in sources)], overwrite=overwrite)
    return planned


@problems.OVERWRITING
def test_nothing_that_exists_is_replaced_without_being_asked(tmp_path):
    path, out = write_photo(tmp_path / "a.jpg"), tmp_path / "out"
    sources = find_inputs([str(path)], out).sources
    check(sources, out, ["panel", "npz"])
    write_photo(out / "a.png")
    with pytest.raises(FileExistsError, match=r"out/a\.png exist already.*--overwrite"):
        check(sources, out, ["panel", "npz"])
    check(sources, out, ["npz"])
    check(sources, out, ["panel", "npz"], overwrite=True)


@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
@problems.OVERWRITING
def test_an_input_is_never_replaced_not_even_through_a_link(link, tmp_path):
    path = write_photo(tmp_path / "a.png")
    out = tmp_path if link == "none" else tmp_path / "out"
    if link != "none":
        out.mkdir()
        (os.symlink if link == "symbolic" else os.link)(path, out / "a.png")
    sources = find_inputs([str(path)], out).sources
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="would replace"):
            check(sources, out, ["panel"], overwrite=overwrite)
    check(sources, tmp_path / "other", ["panel"])


@problems.OVERWRITING
def test_the_checkpoint_is_protected_too(tmp_path):
    path = write_photo(tmp_path / "a.jpg")
    checkpoint = write_photo(tmp_path / "out/a.npz")
    sources = find_inputs([str(path)], tmp_path / "out").sources
    with pytest.raises(ValueError, match=r"would replace .*a\.npz"):
        check(sources, tmp_path / "out", ["npz"], [checkpoint], overwrite=True)


def test_outputs_of_two_inputs_with_one_path_are_refused(tmp_path):
    """A sub-folder called like a task holds what another input has for that task."""
    write_photo(tmp_path / "in/a.jpg")
    write_photo(tmp_path / "in/depth/a.jpg")
    sources = find_inputs([str(tmp_path / "in")], tmp_path / "out").sources
    check(sources, tmp_path / "out", ["panel", "npz"])
    with pytest.raises(ValueError, match=r"depth/a\.png would be an output of .* and of "):
        check(sources, tmp_path / "out", ["panel", "png"])


def test_a_video_and_the_folder_of_its_frames_are_refused(tmp_path):
    write_photo(tmp_path / "in/clip.mp4")
    write_photo(tmp_path / "in/clip/000000.png")
    sources = find_inputs([str(tmp_path / "in")], tmp_path / "out").sources
    check(sources, tmp_path / "out", ["panel"])
    with pytest.raises(ValueError, match=r"clip/000000\.npz, an output of .* would lie among those of "):
        check(sources, tmp_path / "out", ["npz"])


def test_every_kind_has_a_path_and_unknown_ones_are_named(tmp_path):
    source = find_inputs([str(write_photo(tmp_path / "a.jpg"))], tmp_path / "out").sources[0]
    for kind in set(KINDS) - {"coco"}:
        assert Places(tmp_path, TASKS, [kind]).planned(source, "a"), kind
    assert parse_kinds("npz, png,npz") == ("npz", "png")
    with pytest.raises(UnknownNameError, match="Did you mean 'overlay'"):
        parse_kinds("panel,overlays")
    with pytest.raises(ValueError, match="expected one or more"):
        parse_kinds(" , ")


def decoded(values):
    return cv2.imdecode(cv2.imencode(".png", values)[1], cv2.IMREAD_UNCHANGED)


@problems.OVERLAYS
def test_sixteen_bits_hold_what_the_page_says():
    values = np.array([[[0.0, 1.2341, 65.5351]]], dtype=np.float32)
    assert decoded(as_png(TASKS[1], values)).tolist() == [[0, 1234, 65535]]
    with pytest.raises(ValueError, match=r"depth reaches 65.6 m, and 16 bits hold 65.535. Use --save npy"):
        as_png(TASKS[1], np.full((1, 1, 1), 65.6, np.float32))
    probability = as_png(TASKS[3], np.array([[[0.0, 0.5, 1.0]]], dtype=np.float32))
    assert decoded(probability).tolist() == [[0, 32768, 65535]]
    vector = np.array([0.6, 0.0, -0.8], dtype=np.float32).reshape(3, 1, 1)
    red, green, blue = decoded(as_png(TASKS[2], vector))[0, 0, ::-1] / 65535 * 2 - 1
    assert [red, green, blue] == pytest.approx([0.6, 0, -0.8], abs=1e-4)
    assert decoded(as_png(TASKS[0], np.array([[0, 1]], np.uint8))).dtype == np.uint8
    ids = as_png(TASKS[4], np.array([[[0, 256, 513]], [[0, 0.5, 0.9]]], np.float32))
    assert decoded(ids).tolist() == [[0, 256, 513]]


MANY = semseg([f"class {index}" for index in range(300)])


def test_more_than_256_classes_keep_their_ids():
    assert decoded(as_png(MANY, np.array([[299, 0]], np.uint16))).tolist() == [[299, 0]]
    assert statistics(MANY, np.array([[299, 299, 0]], np.uint16)) == {
        "shares": {"class 299": 0.666667, "class 0": 0.333333}
    }


@problems.OVERLAYS
def test_coco_files_hold_the_masks(tmp_path):
    ids = np.zeros((6, 8), np.float32)
    ids[1:3, 2:5], ids[4:, :2] = 2 * BASE, BASE + 3
    classes = (ids > 0).astype(np.uint8)
    prediction = {
        "instance": np.stack([ids, np.where(ids > 0, 0.75, 0).astype(np.float32)]),
        "semseg": classes,
    }
    files = CocoFiles(TASKS)
    files.add("a.jpg", prediction)
    files.add("b.jpg", prediction)
    written = files.write(Places(tmp_path, TASKS, ["coco"]))
    assert [path.name for path in written] == ["semseg.json", "instance.json"]
    content = json.loads(written[1].read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert content["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "cat"}]
    assert [entry["id"] for entry in content["annotations"]] == [1, 2, 3, 4]
    car, cat = content["annotations"][:2]
    assert (car["category_id"], cat["category_id"]) == (1, 2)
    assert (cat["area"], cat["bbox"], cat["score"]) == (6, [2, 1, 3, 2], 0.75)
    np.testing.assert_array_equal(coco_mask.decode(cat["segmentation"]), ids == 2 * BASE)
    with pytest.raises(ValueError, match="needs a task with classes or instances; the tasks are depth"):
        CocoFiles(TASKS[1:2])


def test_statistics_are_plain_numbers():
    assert statistics(TASKS[1], np.array([[[1, 3, np.inf]]], np.float32)) == {
        "min": 1.0, "mean": None, "max": None, "unit": "m",
    }  # fmt: skip
    assert statistics(TASKS[4], np.array([[[0, 256, 257, 513]], [[0, 1, 1, 1]]], np.float32)) == {
        "count": 3, "classes": {"car": 2, "cat": 1},
    }  # fmt: skip
    frames = [
        {"min": 1, "mean": 2.0, "shares": {"a": 1.0}, "each": [0.0, 1.0]},
        {"min": 0, "mean": 4.0, "shares": {"b": 1.0}, "each": [1.0, None]},
    ]
    assert mean_statistics(frames) == {
        "min": 0, "mean": 3.0, "shares": {"a": 0.5, "b": 0.5}, "each": [0.5, 1.0],
    }  # fmt: skip


@problems.OVERLAYS
def test_overlays_lie_on_the_image():
    image = np.full((4, 6, 3), 100, np.uint8)
    probability = np.zeros((1, 4, 6), np.float32)
    probability[0, 1, 2] = 1
    tinted = overlay(image, TASKS[3], probability, opacity=1)
    assert (tinted != 100).any(axis=2).nonzero() == (np.array([1]), np.array([2]))
    classes = np.array([[0, 1, 255]] * 4, np.uint8).repeat(2, axis=1)
    drawn = overlay(image, TASKS[0], classes, opacity=0.5)
    assert (drawn[:, 4:] == 100).all()  # no label
    assert (drawn[:, :4] != 100).any(axis=2).all()
    with pytest.raises(ValueError, match="the map is"):
        overlay(image, TASKS[0], classes[:2])


def test_places_do_not_leave_the_output_folder(tmp_path, monkeypatch):
    write_photo(tmp_path / "in/a.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for text in ("../in/a.png", "../in", "../in/../in/*.png"):
        found = find_inputs([text], Path("out"))
        assert output_names(found.sources) == ["a"]
