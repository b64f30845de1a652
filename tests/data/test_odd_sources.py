"""Downloads in which one file is not like the rest: named, and never passed over without a word."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from clouds import HEADER, arrays, write_pcd

from mtvision.core.files.foreign import DecodeError
from mtvision.data import BSDSSaliency, Mosd
from mtvision.data.prepare import prepare_camvid, prepare_mosd
from mtvision.data.prepare.pcd import read_pcd
from mtvision.data.prepare.sources import by_name, find_all

QUIET = {"progress": False, "expected": None}


@pytest.fixture
def cloud(tmp_path):
    path = tmp_path / "source/learn0.pcd"
    write_pcd(path, *arrays(0))
    return path


def prepared(cloud):
    return prepare_mosd(cloud.parent, cloud.parents[1] / "mosd", **QUIET)


def broken_link(path):
    path.symlink_to("gone.pcd")
    return "broken link"


def pipe(path):
    os.mkfifo(path)
    return "device or pipe"


def folder(path):
    path.mkdir()
    return "empty folder with the name of a file"


@pytest.mark.parametrize("make", [broken_link, pipe, folder])
def test_what_is_no_file_is_not_passed_over(make, cloud):
    found = make(cloud.with_name("learn1.pcd"))
    with pytest.raises(FileNotFoundError, match=rf"learn1\.pcd: expected a file, found: {found}"):
        prepared(cloud)


def test_endings_in_upper_case_are_prepared(cloud, tmp_path):
    cloud.rename(cloud.with_suffix(".PCD"))
    assert prepared(cloud).written == 4
    for name, array in (("train/a.PNG", np.zeros((6, 8, 3), np.uint8)), ("trainannot/a.PNG", np.eye(6, 8))):
        path = tmp_path / "camvid" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", array.astype(np.uint8))[1].tobytes())
    outcome = prepare_camvid(tmp_path / "camvid", tmp_path / "out", **QUIET)
    assert (outcome.problems, outcome.written) == ([], 2)
    assert (tmp_path / "out/trainannot/a.png").is_file()


def test_folders_are_found_by_their_exact_name(tmp_path):
    (tmp_path / "Data.d/Annotations_Part").mkdir(parents=True)
    assert find_all(tmp_path, "Annotations_Part", folder=True) == [tmp_path / "Data.d/Annotations_Part"]


def test_two_files_of_one_name_must_be_equal(cloud):
    copy = cloud.parent / "copy" / cloud.name
    copy.parent.mkdir()
    copy.write_bytes(cloud.read_bytes())
    assert prepared(cloud).written == 4
    assert by_name(find_all(cloud.parent, "*.pcd")) == {"learn0": copy}
    write_pcd(copy, *arrays(1))
    with pytest.raises(ValueError, match=r"copy/learn0\.pcd and .*learn0\.pcd have one name and differ"):
        prepared(cloud)


def with_header(cloud, before, after):
    assert before in HEADER
    cloud.write_bytes(cloud.read_bytes().replace(before.encode(), after.encode(), 1))


def test_colours_that_a_cloud_calls_real_numbers_are_the_same_bytes(cloud):
    expected = arrays(0)[0]
    with_header(cloud, "TYPE U F F F U", "TYPE U F F F F")
    assert prepared(cloud).problems == []
    picture = cv2.imread(str(cloud.parents[1] / "mosd/rgb/learn0.png"))
    assert np.array_equal(picture[..., ::-1], expected)


def test_labels_that_are_no_whole_numbers_and_repeated_fields_are_refused(cloud):
    with_header(cloud, "TYPE U F F F U", "TYPE F F F F U")
    assert "learn0.pcd: labels of type float32" in prepared(cloud).problems[0]
    with_header(cloud, "FIELDS label x y z rgba", "FIELDS label x z z rgba")
    with pytest.raises(DecodeError, match=r"learn0\.pcd: FIELDS names one twice: label x z z rgba"):
        read_pcd(cloud)


@pytest.mark.parametrize("change", ["depth", "label"])
def test_converted_frames_are_compared_with_what_the_loader_reads(change, tmp_path):
    rgb, depth, label = arrays(0)
    frames = {"rgb": rgb[..., ::-1], "depth": depth, "label": label}
    if change == "depth":
        frames["depth"] = (depth // 16).astype(np.uint8)
    else:
        frames["label"] = label.astype(np.uint16) * 256
    for kind, array in frames.items():
        (tmp_path / "source" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "source" / kind / "learn0.png"), array)
    outcome = prepare_mosd(tmp_path / "source", tmp_path / "mosd", **QUIET)
    said = "a depth file has 16 bits per pixel, this one has 8" if change == "depth" else "holds the id"
    assert f"{change}/learn0.png: {said}" in outcome.problems[0]


def test_depth_and_annotators_of_8_bits_are_refused(cloud, tmp_path):
    prepared(cloud)
    path = cloud.parents[1] / "mosd/depth/learn0.png"
    cv2.imwrite(str(path), np.full((24, 32), 100, np.uint8))
    with pytest.raises(DecodeError, match=r"depth/learn0\.png: a depth file has 16 bits per pixel"):
        Mosd(cloud.parents[1] / "mosd", split="train", check=False).read(0)
    for name, array in (
        ("images/train/1.jpg", np.zeros((6, 8, 3))),
        ("annotators/1.png", np.eye(6, 8)),
        ("saliency/1.png", np.eye(6, 8) * 255),
    ):
        (tmp_path / "bsds" / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "bsds" / name), array.astype(np.uint8))
    with pytest.raises(DecodeError, match=r"annotators/1\.png: a file of annotators has 16 bits per pixel"):
        BSDSSaliency(tmp_path / "bsds", split="train", check=False).read(0)
