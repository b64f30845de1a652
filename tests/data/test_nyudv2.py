"""NYUD-v2: both packagings, ids, units, missing labels, damaged and foreign copies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import DATASETS
from mtvision.data.decode import DecodeError
from mtvision.data.manifest import data_manifest, scored_data
from mtvision.data.nyudv2 import NYUDv2, read_depth, read_semseg
from mtvision.data.prepare.geometry import KINECT_NYU, normals_from_depth
from mtvision.data.transforms.geometry import flip_horizontally
from mtvision.protocols import get_protocol


@pytest.fixture
def root(miniature, tmp_path):
    return miniature.nyud(tmp_path / "NYUDv2")


def stored(path):
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return array[..., ::-1] if array.ndim == 3 else array


def test_labels_and_units(root):
    data = NYUDv2(root, split="train", check=False)
    assert data.ids == ["0003", "0001", "0007"]  # the list's order
    assert data.protocol.id == "nyud-invpt"
    raw = data.read(1)
    assert raw.meta.id == "0001"
    assert np.array_equal(raw.image, stored(root / "images" / "0001.png"))
    on_disk = stored(root / "segmentation" / "0001.png").astype(int)
    assert np.array_equal(raw.labels["semseg"], np.where(on_disk == 0, 255, on_disk - 1))
    assert raw.labels["semseg"][0, :2].tolist() == [255, 39]
    assert np.array_equal(raw.labels["edge"][..., 0], stored(root / "edge" / "0001.png") / 255)
    assert set(np.unique(raw.labels["edge"])) == {0.0, 1.0}
    depth = np.load(root / "depth" / "0001.npy")
    assert np.isnan(raw.labels["depth"][0, 0, 0])  # 0 on disk
    assert np.array_equal(raw.labels["depth"][1:, :, 0], depth[1:])
    normals = stored(root / "normals" / "0001.png").astype(np.float32)
    assert np.allclose(raw.labels["normals"], 2 * normals / 255 - 1, atol=1e-6)


def test_samples_follow_the_contract(root):
    data = NYUDv2(root, split="val", check=False)
    sample = data[0]
    assert sample.image.dtype == torch.float32
    assert {name: (label.dtype, label.shape) for name, label in sample.labels.items()} == {
        "semseg": (torch.int64, (17, 23)),
        "depth": (torch.float32, (1, 17, 23)),
        "normals": (torch.float32, (3, 17, 23)),
        "edge": (torch.float32, (1, 17, 23)),
    }


def test_survey_packaging(miniature, tmp_path):
    root = miniature.nyud(tmp_path / "NYUD_MT", packaging="survey")
    data = NYUDv2(root, split="train", packaging="survey", check=False)
    assert data.protocol.id == "nyud-survey"
    raw = data.read(0)
    normals = np.load(root / "normals" / "0003.npy")
    assert np.isnan(raw.labels["normals"][0, 0]).all()  # the zero vector
    assert np.array_equal(raw.labels["normals"][1:], normals[1:])
    assert np.array_equal(raw.labels["edge"][..., 0], np.load(root / "edge" / "0003.npy"))
    assert raw.labels["semseg"][0, :2].tolist() == [255, 39]


def test_a_config_builds_it(root):
    config = {"type": "NYUDv2", "root": str(root), "split": "train", "check": False}
    data = DATASETS.build(config, protocol=get_protocol("nyud-invpt"), seed=3)
    assert (len(data), data.seed) == (3, 3)
    with pytest.raises(UnknownNameError, match="Did you mean 'packaging'"):
        DATASETS.build({**config, "packagin": "invpt"}, protocol=None, seed=0)


def test_counts_and_frame_sizes_are_those_of_the_paper(root):
    with pytest.raises(ValueError, match="found 3 images, the protocol has 795"):
        NYUDv2(root, split="train")
    data = NYUDv2(root, split="train", check=False)
    data.check = True
    with pytest.raises(DecodeError, match=r"17x23.*425x560.*circulates on Google Drive"):
        data[0]


def test_only_the_files_of_the_wanted_tasks_are_needed(root):
    (root / "normals" / "0001.png").unlink()
    assert len(NYUDv2(root, split="train", check=False, tasks=["depth", "edge"])) == 3
    with pytest.raises(
        FileNotFoundError, match=r"0001.png.*'normals'.*1 of 3 images.*\['semseg', 'depth', 'edge'\]"
    ):
        NYUDv2(root, split="train", check=False)


def test_missing_labels_may_be_absent(root):
    (root / "normals" / "0001.png").unlink()
    data = NYUDv2(root, split="train", check=False, missing_labels="absent")
    assert "normals" not in data[1].labels
    assert "normals" in data[0].labels
    assert [path.name for path in data.missing("normals")] == ["0001.png"]
    assert "normals/0001.png" not in data.files()


def test_list_that_names_a_missing_image(root):
    with (root / "gt_sets" / "val.txt").open("a") as file:
        file.write("1450\n")
    with pytest.raises(FileNotFoundError, match=r"1450.png.*1 of 3"):
        NYUDv2(root, split="val", check=False, missing_labels="absent")


def test_list_with_a_repeated_id(root):
    (root / "gt_sets" / "val.txt").write_text("0002\n0002\n")
    with pytest.raises(ValueError, match=r"val.txt: id '0002' occurs twice"):
        NYUDv2(root, split="val", check=False)


def test_missing_root_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gt_sets/\{train,val\}.txt[\s\S]*prepare_dataset.py nyudv2"):
        NYUDv2(tmp_path / "nowhere", split="train")


def test_unknown_names(root):
    with pytest.raises(UnknownNameError, match="Did you mean 'invpt'"):
        NYUDv2(root, split="train", packaging="invp")
    with pytest.raises(UnknownNameError, match="split of NYUDv2"):
        NYUDv2(root, split="test")
    with pytest.raises(UnknownNameError, match="missing_labels"):
        NYUDv2(root, split="train", check=False, missing_labels="ignore")


def test_label_of_another_resolution_stops(root, miniature):
    path = root / "segmentation" / "0003.png"
    miniature.write_png(path, np.ones((34, 46), np.uint8))
    with pytest.raises(ValueError, match=r"segmentation/0003.png: the semseg label is 34x46.*17x23"):
        NYUDv2(root, split="train", check=False)[0]


def test_truncated_png_stops(root):
    path = root / "segmentation" / "0003.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DecodeError, match=r"0003.png: the file is truncated"):
        NYUDv2(root, split="train", check=False)[0]


def test_class_out_of_range_stops(tmp_path, miniature):
    miniature.write_png(tmp_path / "a.png", np.array([[0, 41]], np.uint8))
    with pytest.raises(DecodeError, match=r"a.png: holds the id 41, expected 0..0 \(none\) and 1..40"):
        read_semseg(tmp_path / "a.png")


def test_depth_in_another_unit_stops(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.full((2, 2), 2400.0, np.float32))
    with pytest.raises(DecodeError, match="are millimetres"):
        read_depth(path)
    np.save(path, np.full((2, 2), 2400, np.uint16))
    with pytest.raises(DecodeError, match="floating-point numbers, got uint16"):
        read_depth(path)
    np.save(path, np.full((2, 2, 3), 2.0))
    with pytest.raises(DecodeError, match=r"shape \(H, W, 1\), got \(2, 2, 3\)"):
        read_depth(path)


def test_half_precision_and_double_depth_become_float32(tmp_path):
    for kind in (np.float16, np.float64):
        np.save(tmp_path / "a.npy", np.array([[1.5, 0]], kind))
        depth = read_depth(tmp_path / "a.npy")
        assert depth.dtype == np.float32
        assert depth[0, 0, 0] == 1.5
        assert np.isnan(depth[0, 1, 0])


def test_quirk_07_evaluation_edges_are_the_edge_picture_as_a_segmentation(root):
    data = NYUDv2(root, split="train", check=False, tasks=["depth"])
    assert np.array_equal(data.boundary_segmentation(0), stored(root / "edge" / "0003.png"))


def test_quirk_15_missing_depth_is_no_number(root):
    """Sentinels 255, -1 and 0 of the published codes select the same pixels; NaN is none of their values."""
    data = NYUDv2(root, split="train", check=False)
    depth = data[0].labels["depth"]
    on_disk = torch.from_numpy(np.load(root / "depth" / "0003.npy"))[None]
    assert torch.equal(torch.isfinite(depth), on_disk != 0)


def test_quirk_27_stored_normals_are_neither_missing_nor_exactly_unit(root):
    normals = NYUDv2(root, split="train", check=False).read(0).labels["normals"]
    assert np.isfinite(normals).all()  # 8 bits hold no exact zero
    length = np.linalg.norm(normals, axis=2)
    assert 0.98 < length.min() < 1 < length.max() < 1.02
    assert not np.allclose(length, 1, atol=1e-4)  # and the loader does not repair it


def test_the_folder_is_not_written_to(root):
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    data = NYUDv2(root, split="train", check=False)
    for index in range(len(data)):
        data[index]
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


def test_manifest_changes_with_the_packaging_and_not_with_the_place(root, tmp_path):
    first = data_manifest(NYUDv2(root, split="val", check=False))
    moved = root.rename(tmp_path / "elsewhere")
    assert data_manifest(NYUDv2(moved, split="val", check=False)) == first
    assert first["files"] == 2 * 5


def test_one_task_is_known_to_be_scored_on_the_same_images(root):
    whole = scored_data(NYUDv2(root, split="val", check=False))
    depth = scored_data(NYUDv2(root, split="val", check=False, tasks=["depth"]))
    assert depth == {**whole, "labels": {"depth": whole["labels"]["depth"]}}
    file = next(path for path in NYUDv2(root, split="val", check=False).files_of("depth").values())
    with file.open("ab") as stream:
        stream.write(b"\0")
    changed = scored_data(NYUDv2(root, split="val", check=False))["labels"]
    assert [name for name in changed if changed[name] != whole["labels"][name]] == ["depth"]


def test_real_frame_in_this_encoding(real_data, root, miniature):
    """A real photograph with its 40-class map and depth, repacked into the layout."""
    folder = real_data / "nyud_samples"
    image, label = stored(folder / "000433.png"), stored(folder / "segm_gt_000433.png").astype(int)
    depth = (stored(folder / "depth_gt_000433.png") / 5000).astype(np.float32)
    normals = stored(folder / "norm_gt_000433.png")
    miniature.write_png(root / "images" / "0003.png", image)
    on_disk = np.where(label == 255, 0, label + 1).astype(np.uint8)
    miniature.write_png(root / "segmentation" / "0003.png", on_disk)
    miniature.write_png(root / "normals" / "0003.png", normals)
    miniature.write_png(root / "edge" / "0003.png", np.zeros(label.shape, np.uint8))
    np.save(root / "depth" / "0003.npy", depth)
    raw = NYUDv2(root, split="train", check=False).read(0)
    assert np.array_equal(raw.labels["semseg"], label)
    assert np.isnan(raw.labels["depth"]).mean() == pytest.approx((depth == 0).mean())
    assert np.nanmax(raw.labels["depth"]) == pytest.approx(29649 / 5000)


def test_a_flipped_real_frame_is_read_as_the_flip_of_what_is_read(real_data, tmp_path, miniature):
    """Image and normals (made from depth) of the mirrored scene: the loader's x axis changes sign."""
    folder = real_data / "nyud_samples"
    image = stored(folder / "000433.png")
    depth = stored(folder / "depth_gt_000433.png") / 5000
    read = {}
    for flipped in (False, True):
        root = miniature.nyud(tmp_path / str(flipped))
        camera = KINECT_NYU.mirrored(depth.shape[1]) if flipped else KINECT_NYU
        normals = normals_from_depth(np.ascontiguousarray(depth[:, ::-1] if flipped else depth), camera)
        encoded = np.round((np.nan_to_num(normals) + 1) * 127.5).astype(np.uint8)
        miniature.write_png(root / "images" / "0003.png", image[:, ::-1] if flipped else image)
        miniature.write_png(root / "normals" / "0003.png", encoded)
        read[flipped] = NYUDv2(root, split="train", check=False, tasks=["normals"]).read(0)
    mirrored = flip_horizontally(read[False])
    assert np.array_equal(mirrored.image, read[True].image)
    difference = np.abs(mirrored.labels["normals"] - read[True].labels["normals"])
    assert difference.max() <= 2.001 * 2 / 255  # 8 bits round x and -x to different sides
