"""Which files of a folder count: one policy through the finder, data sets, predictions and `predict`."""

from __future__ import annotations

import logging
import os
import shutil
import unicodedata
from collections import Counter

import data_problems as problems
import numpy as np
import pytest
from PIL import Image

from mtvision.core.files.droppings import dropping, original_of
from mtvision.core.files.find import find_files
from mtvision.core.files.names import case_hint, stored
from mtvision.core.files.walk import LOOP, SPECIAL
from mtvision.core.task import Task
from mtvision.data.folder import FolderDataset
from mtvision.data.mtan_npy import MtanNpy
from mtvision.evaluation.predict.inputs import find_inputs
from mtvision.evaluation.prediction_files import PredictionFiles, PredictionFilesError
from mtvision.metrics.boundary.protocols import get_boundary_protocol
from mtvision.metrics.boundary.runner import find_pairs
from mtvision.protocols import own_protocol
from mtvision.report.record import json_files

ENDINGS = (".png", ".npy")
ONE = own_protocol("one", {"semseg": {"class_names": ["a", "b"]}})
SEMSEG = ONE.task("semseg")
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def pictures(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(file, format="PNG")


def own_data(root, **options):
    return FolderDataset(root, labels={"semseg": "labels"}, protocol=ONE, **options)


def predictions(root):
    return PredictionFiles.find(root, (SEMSEG,))


DROPPINGS = {
    "._a.png": "resource fork",
    ".DS_Store": "system file",
    "Thumbs.db": "system file",
    "THUMBS.DB": "system file",
    "desktop.ini": "system file",
    "Icon\r": "system file",
    ".b.png": "hidden",
    ".gitkeep": "hidden",
    "a.png~": "editor copy",
    "#a.png#": "editor copy",
    ".#a.png": "editor copy",
    ".a.png.swp": "editor copy",
    "a.png.bak": "editor copy",
    "~$a.png": "editor copy",
    "a.png.part": "partial download",
    "a.png.crdownload": "partial download",
}
FOLDERS = {
    "__MACOSX/a.png": "system folder",
    "@eaDir/a.png": "system folder",
    ".ipynb_checkpoints/a.png": "system folder",
    "$RECYCLE.BIN/a.png": "system folder",
    ".git/a.png": "hidden",
    ".cache/deep/a.png": "hidden",
}


@pytest.mark.parametrize("name", [*DROPPINGS, *FOLDERS])
@problems.DROPPINGS
def test_what_programs_leave_behind_is_left_out_and_named(name, tmp_path):
    reason = {**DROPPINGS, **FOLDERS}[name]
    pictures(tmp_path / "images", "a.png", name)
    pictures(tmp_path / "labels", "a.png", name)
    shown = name if name in DROPPINGS else f"{name.split('/')[0]}/"
    found = find_files(tmp_path / "images", ENDINGS)
    assert list(found.files) == ["a"]
    assert found.left_out == ((shown, reason),)
    assert found.summary("images") == f"images: 1 file; left out 1: 1 {reason} ({shown})"
    dataset = own_data(tmp_path)
    assert dataset.ids == ["a"]
    assert [f"1 {reason} ({shown})" in remark for remark in dataset.remarks()] == [True, True]
    shutil.move(tmp_path / "labels", tmp_path / "predictions/semseg")
    files = predictions(tmp_path / "predictions")
    files.require(["a"])
    assert files.left_out == (f"semseg: 1 file; left out 1: 1 {reason} ({shown})",)
    inputs = find_inputs([str(tmp_path / "images")], tmp_path / "out")
    assert [source.path for source in inputs.sources] == [tmp_path / "images/a.png"]
    assert inputs.dropped == [(shown, reason)]


def test_the_summary_is_logged_once_and_counts_endings(tmp_path, caplog):
    pictures(tmp_path / "images", "a.png", "b.png", "Thumbs.db", "c.txt", "sub/d.TXT", "readme", ".x.png")
    pictures(tmp_path / "labels", "a.png", "b.png")
    with caplog.at_level(logging.WARNING, "mtvision"):
        dataset = own_data(tmp_path)
    summary = (
        f"images in {tmp_path}/images: 2 files; left out 5: 1 hidden (.x.png), 1 system file (Thumbs.db), "
        "2 .txt, 1 without ending"
    )
    assert dataset.remarks() == (summary,)
    assert [record.getMessage() for record in caplog.records] == [summary]
    assert find_files(tmp_path / "images", ENDINGS).others == Counter({".txt": 2, "without ending": 1})
    assert find_files(tmp_path / "labels", ENDINGS).summary() == ""


def test_copies_of_file_managers_are_images_and_a_missing_label_says_so(tmp_path):
    pictures(tmp_path / "images", "a.png", "a (copy).png")
    pictures(tmp_path / "labels", "a.png", "notes.txt")
    with pytest.raises(FileNotFoundError, match=r"copy of 'a', made by a file manager.*Left out .*1 \.txt"):
        own_data(tmp_path)
    pictures(tmp_path / "labels", "a (copy).png")
    assert own_data(tmp_path).ids == ["a", "a (copy)"]
    names = ("a (1)", "a - Copy", "a - Kopie (2)", "a copy", "a.sync-conflict-20260101-1", "a 1", "(1)")
    assert [original_of(name) for name in names] == ["a"] * 5 + [None, None]


@problems.LINKS
def test_linked_files_and_folders_are_followed(tmp_path):
    pictures(tmp_path / "store", "a.png", "more/b.png")
    (tmp_path / "images").mkdir()
    os.symlink(tmp_path / "store/a.png", tmp_path / "images/a.png")
    os.symlink(tmp_path / "store/more", tmp_path / "images/linked")
    os.symlink(tmp_path / "images", tmp_path / "labels")
    os.symlink(tmp_path / "labels", tmp_path / "semseg")
    assert own_data(tmp_path).ids == ["a", "linked/b"]
    predictions(tmp_path).require(["a", "linked/b"])
    inputs = find_inputs([str(tmp_path / "images")], tmp_path / "out")
    assert [source.path.name for source in inputs.sources] == ["a.png", "b.png"]


@pytest.mark.parametrize("target", [".", "..", "../images", "../../x/images"])
@problems.LINKS
def test_links_to_a_folder_that_holds_them_are_not_followed(target, tmp_path):
    root = tmp_path / "x"
    pictures(root / "images", "a.png", "sub/b.png")
    os.symlink(target, root / "images/again")
    found = find_files(root / "images", ENDINGS)
    assert list(found.files) == ["a", "sub/b"]
    assert found.left_out == (("again/", LOOP),)


@problems.LINKS
def test_two_folders_that_link_to_one_another_end(tmp_path):
    pictures(tmp_path, "x/a.png", "y/b.png")
    os.symlink("../y", tmp_path / "x/y")
    os.symlink("../x", tmp_path / "y/x")
    assert list(find_files(tmp_path, ENDINGS).files) == ["x/a", "x/y/b", "y/b", "y/x/a"]


@problems.LINKS
def test_a_broken_link_is_an_error_where_its_ending_is_wanted(tmp_path):
    pictures(tmp_path / "images", "a.png")
    pictures(tmp_path / "labels", "a.png")
    for folder, name in (("images", "notes.txt"), ("labels", "old"), ("labels", ".#a.png")):
        os.symlink("gone", tmp_path / folder / name)
    assert ["1 broken link" in remark for remark in own_data(tmp_path).remarks()] == [True, True]
    os.symlink("gone.png", tmp_path / "images/b.png")
    with pytest.raises(FileNotFoundError, match=r"images/b\.png: a link to gone\.png, which is gone"):
        own_data(tmp_path)
    os.symlink("c.png", tmp_path / "labels/c.png")
    os.rename(tmp_path / "labels", tmp_path / "semseg")
    with pytest.raises(FileNotFoundError, match=r"semseg/c\.png: a link to c\.png, which is gone"):
        predictions(tmp_path)


def test_pipes_and_empty_folders_with_the_name_of_a_picture_are_said(tmp_path):
    pictures(tmp_path, "a.png", "c.png/d.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "v1.0").mkdir()
    found = find_files(tmp_path, ENDINGS)
    assert list(found.files) == ["a", "c.png/d"]
    assert dict(found.left_out)["pipe.png"] == SPECIAL
    assert [path for path, _ in found.left_out] == ["pipe.png", "b.png"]


@pytest.mark.parametrize(("image", "label"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
@problems.UNICODE_NAMES
def test_composed_and_decomposed_names_match(image, label, tmp_path):
    pictures(tmp_path / "images", f"{image}.png", f"{image}-sub/x.png")
    pictures(tmp_path / "labels", f"{label}.png", f"{label}-sub/x.png")
    (tmp_path / "list.txt").write_text(f"{label}\n{image}-sub/x\n", encoding="utf-8")
    dataset = own_data(tmp_path, ids="list.txt")
    assert dataset.ids == [COMPOSED, f"{COMPOSED}-sub/x"]
    assert dataset.read(0).labels["semseg"].shape == (4, 4)
    assert own_data(tmp_path, ids=[image]).ids == own_data(tmp_path, ids=[label]).ids == [COMPOSED]
    os.rename(tmp_path / "labels", tmp_path / "semseg")
    files = predictions(tmp_path)
    files.require([image, f"{image}-sub/x"])
    assert files.path(SEMSEG, image).is_file()


@pytest.mark.parametrize("folder", ["Stra\u00dfe \u00e4", "\u00e4/\u00f6"])
@problems.UNICODE_NAMES
def test_folders_are_found_in_the_other_unicode_form(folder, tmp_path):
    on_disk = unicodedata.normalize("NFD", folder)
    pictures(tmp_path / on_disk, "a.png")
    dataset = FolderDataset(tmp_path, images=folder, labels={"semseg": folder}, protocol=ONE)
    assert dataset.read(0).labels["semseg"].shape == (4, 4)
    assert stored(tmp_path / folder) == tmp_path / on_disk


@problems.UNICODE_NAMES
def test_two_files_for_one_key_are_an_error(tmp_path):
    for names, why in (
        (("a.png", "a.npy"), "both a.npy and a.png have the same name"),
        (("a.png", "a.PNG"), "both a.PNG and a.png differ only in the case of the ending"),
        ((f"{COMPOSED}.png", f"{DECOMPOSED}.png"), "differ only in the Unicode form"),
        ((f"{COMPOSED}/a.png", f"{DECOMPOSED}/a.npy"), "have the same name"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        touch(folder / "semseg", *names)
        with pytest.raises(ValueError, match=why):
            find_files(folder / "semseg", ENDINGS)
        with pytest.raises(PredictionFilesError, match=why):
            predictions(folder)


@pytest.mark.parametrize(
    "name",
    ["a{1}", "{split}", "a b", "100%", "%s", "a\nb", "-rf", "--out", "a[1]", "x.y.z", "*", "'q'", "#1"],
)
@problems.ODD_NAMES
def test_odd_names_are_names(name, tmp_path):
    pictures(tmp_path / name / "images", f"{name}.png")
    pictures(tmp_path / name / "labels", f"{name}.png")
    dataset = own_data(tmp_path / name)
    assert dataset.ids == [name]
    assert dataset.read(0).labels["semseg"].shape == (4, 4)
    assert own_data(tmp_path / name, ids=[name]).ids == [name]
    os.rename(tmp_path / name / "labels", tmp_path / name / "semseg")
    predictions(tmp_path / name).require([name])
    inputs = find_inputs([str(tmp_path / name / "images")], tmp_path / "out")
    assert [source.path.stem for source in inputs.sources] == [name.removesuffix(".png")]


@problems.ODD_NAMES
def test_only_the_name_of_the_split_is_replaced_in_paths(tmp_path):
    for split in ("train", "val"):
        pictures(tmp_path / f"{{x}}{split}" / "{}", f"{split}.png")
    dataset = FolderDataset(
        tmp_path, images="{x}{split}/{}", labels={"semseg": "{x}{split}/{}"}, protocol=ONE, split="val"
    )
    assert dataset.ids == ["val"]


@pytest.mark.parametrize("ending", [".PNG", ".Png"])
@problems.CASE
def test_endings_count_in_any_case(ending, tmp_path):
    pictures(tmp_path / "images", f"a{ending}", f"b_rgb{ending}")
    pictures(tmp_path / "semseg", f"a{ending}")
    assert list(find_files(tmp_path / "images", ENDINGS).files) == ["a", "b_rgb"]
    assert list(find_files(tmp_path / "images", (), suffix="_rgb.png").files) == ["b"]
    assert list(find_files(tmp_path / "images", (), suffix="_RGB.png").files) == []
    files = predictions(tmp_path)
    files.require(["a"])
    assert files.read(SEMSEG, "a", (4, 4)).shape == (4, 4)


@problems.CASE
def test_arrays_count_in_any_case(tmp_path):
    pictures(tmp_path / "images", "a.PNG")
    (tmp_path / "semseg").mkdir()
    with (tmp_path / "semseg/a.NPY").open("wb") as file:
        np.save(file, np.ones((4, 4), np.uint8))
    dataset = FolderDataset(tmp_path, labels={"semseg": "semseg"}, protocol=ONE)
    assert (dataset.read(0).labels["semseg"] == 1).all()
    assert predictions(tmp_path).read(SEMSEG, "a", (4, 4)).sum() == 16


def test_names_that_differ_in_case_are_two_and_are_named_where_one_is_missing(tmp_path):
    pictures(tmp_path / "images", "a.png", "A.png")
    pictures(tmp_path / "labels", "a.png", "A.png")
    assert own_data(tmp_path).ids == ["A", "a"]
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"names 'a', but .*'A' differs in upper and lower case"):
        own_data(tmp_path, ids=["a"])
    (tmp_path / "labels/A.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"A\.png.*'a\.png' differs in upper and lower case; rename"):
        own_data(tmp_path)
    assert "('a' and 'A')" in own_data(tmp_path, partial=True).remarks()[0]
    with pytest.raises(FileNotFoundError, match="There is 'images', which differs in upper and lower case"):
        own_data(tmp_path, images="Images")
    assert case_hint(tmp_path / "none") == ""


def test_a_name_that_is_no_text_is_refused(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    with pytest.raises(ValueError, match=r"caf\\xe9\.png: this name is no UTF-8 text"):
        find_files(tmp_path, ENDINGS)
    (tmp_path / os.fsdecode(b"caf\xe9.png")).rename(tmp_path / os.fsdecode(b"caf\xe9.txt"))
    assert list(find_files(tmp_path, ENDINGS).files) == ["a"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    pictures(tmp_path, "a.png", "sub/b.png")
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"sub: this folder cannot be listed \(Permission denied\)"):
        find_files(tmp_path, ENDINGS)


def test_the_order_is_that_of_the_keys_and_levels_can_be_limited(tmp_path):
    touch(tmp_path, "b.png", "a-b/c.png", "a/c.png", "a/d/e.png", ".png", "a/.png")
    assert list(find_files(tmp_path, ENDINGS).files) == ["a-b/c", "a/c", "a/d/e", "b"]
    flat = find_files(tmp_path, ENDINGS, depth=0)
    assert list(flat.files) == ["b"]
    assert "2 folder that is not entered (a/)" in flat.summary()
    assert list(find_files(tmp_path, ENDINGS, depth=1).files) == ["a-b/c", "a/c", "b"]
    with pytest.raises(FileNotFoundError, match=r"b\.png: a file, expected a folder"):
        find_files(tmp_path / "b.png", ENDINGS)


def test_numbered_files_of_mtan_with_droppings(tmp_path):
    for name in ("0.npy", "10.npy", "2.npy", "._0.npy", "1.npy~", "Thumbs.db"):
        for folder in ("image", "depth"):
            touch(tmp_path / "train" / folder, name)
    options = {"split": "train", "tasks": ["depth"], "check": False}
    dataset = MtanNpy(tmp_path, **options)
    assert dataset.ids == ["0", "2", "10"]
    assert "left out 3: 1 resource fork (._0.npy)" in dataset.remarks()[0]
    touch(tmp_path / "train/image", "007.npy")
    with pytest.raises(ValueError, match=r"007\.npy: expected a number as the name"):
        MtanNpy(tmp_path, **options)


def test_pairs_of_the_boundary_tool_and_records_follow_the_same_rules(tmp_path, caplog):
    pictures(tmp_path / "store", "a.png", "._a.png", "b.PNG", "a.png~")
    os.symlink(tmp_path / "store", tmp_path / "maps")
    protocol = get_boundary_protocol("bsds")
    pairs = find_pairs(tmp_path / "maps", tmp_path / "store", protocol, subset=True)
    assert [(pair.id, pair.prediction.name) for pair in pairs] == [("a", "a.png"), ("b", "b.PNG")]
    assert "left out 2: 1 resource fork (._a.png), 1 editor copy (a.png~)" in caplog.text
    listed = find_pairs(
        tmp_path / "maps", tmp_path / "store", protocol, subset=True, ids=["b.png", "maps/../a"]
    )
    assert [pair.id for pair in listed] == ["b", "a"]
    touch(tmp_path / "runs", "x/record.json", "x/._record.json", ".old/record.json")
    os.symlink(tmp_path / "runs", tmp_path / "all")
    assert json_files(tmp_path / "all") == [tmp_path / "all/x/record.json"]


def test_predictions_of_another_format_are_named_with_what_is_missing(tmp_path):
    touch(tmp_path / "semseg", "a.jpg", "b.jpg", "c.png")
    with pytest.raises(
        PredictionFilesError, match=r"missing \(2 of 3\): a, b\n.*1 file; left out 2: 2 \.jpg"
    ):
        predictions(tmp_path).require(["a", "b", "c"])


def test_droppings_are_known_by_name_alone():
    assert [dropping(name) for name in ("a.png", "a~b.png", "part.png", "a.b", "#1.png")] == [None] * 5
    assert dropping("photos", folder=True) is None
    assert isinstance(SEMSEG, Task)
