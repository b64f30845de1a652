"""The NumPy sets of the optimisation literature."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtvision.data.decode import DecodeError
from mtvision.data.mtan_npy import MtanNpy
from mtvision.protocols import get_protocol


@pytest.fixture
def nyuv2(miniature, tmp_path):
    return miniature.mtan(tmp_path / "nyuv2")


@pytest.fixture
def cityscapes(miniature, tmp_path):
    return miniature.mtan(tmp_path / "cityscapes", kind="cityscapes")


def test_numbers_are_sorted_as_numbers(nyuv2):
    data = MtanNpy(nyuv2, split="train", check=False)
    assert data.ids == [str(number) for number in range(12)]
    assert [round(float(data.read(i).image[0, 0, 0])) for i in range(12)] == list(range(12))


def test_labels(nyuv2):
    data = MtanNpy(nyuv2, split="val", check=False)
    raw = data.read(0)
    label = np.load(nyuv2 / "val" / "label" / "0.npy")
    assert np.array_equal(raw.labels["semseg"], np.where(label == -1, 255, label))
    depth = np.load(nyuv2 / "val" / "depth" / "0.npy")
    assert np.array_equal(np.isnan(raw.labels["depth"]), depth == 0)
    assert raw.image.max() > 1  # 0..1 on disk, 0..255 in the contract
    assert torch.equal(torch.isnan(data[0].labels["depth"][0]), torch.from_numpy(depth[..., 0] == 0))


def test_quirk_32_a_normal_whose_components_cancel_is_dropped(nyuv2):
    normals = MtanNpy(nyuv2, split="val", check=False).read(0).labels["normals"]
    assert np.isnan(normals[0, 0]).all()  # the zero vector
    assert np.isnan(normals[0, 1]).all()  # (0.5, -0.5, 0): valid, but its sum is 0
    assert np.isfinite(normals[0, 2:]).all()


def test_quirk_30_invalid_depth_survives_a_division(cityscapes):
    """A sentinel of 255 becomes 170 when divided by a zoom of 1.5, and is then learnt."""
    protocol = get_protocol("cityscapes-mtan-7")
    depth = MtanNpy(cityscapes, split="val", check=False, protocol=protocol).read(0).labels["depth"]
    assert np.array_equal(np.isnan(depth), np.isnan(depth / 1.5))
    assert np.isnan(depth[0, :3]).all()


def test_quirk_31_inverse_depth_is_divided_unless_fixed(cityscapes):
    protocol = get_protocol("cityscapes-mtan-7")
    published = MtanNpy(cityscapes, split="val", check=False, protocol=protocol)
    assert published.tasks["depth"].geometry == "depth"
    fixed = MtanNpy(cityscapes, split="val", check=False, protocol=protocol, zoom_fix=True)
    assert fixed.tasks["depth"].geometry == "disparity"
    assert fixed.protocol.id == protocol.id
    with pytest.raises(ValueError, match="depth in metres"):
        MtanNpy(cityscapes, split="val", check=False, zoom_fix=True)


def test_quirk_37_indices_do_not_depend_on_the_file_system(cityscapes):
    protocol = get_protocol("cityscapes-mtan-7")
    data = MtanNpy(cityscapes, split="train", check=False, protocol=protocol)
    assert data.ids == sorted(data.ids, key=int)


def test_number_of_classes_chooses_the_label_folder(cityscapes):
    for classes in (7, 19):
        protocol = get_protocol(f"cityscapes-mtan-{classes}")
        data = MtanNpy(cityscapes, split="val", check=False, protocol=protocol)
        assert data.label_folder == f"label_{classes}"
        label = np.load(cityscapes / "val" / f"label_{classes}" / "1.npy")
        assert np.array_equal(data.read(1).labels["semseg"], np.where(label == -1, 255, label))
    other = MtanNpy(cityscapes, split="val", check=False, protocol=protocol, labels="label_7")
    assert other.source(0, "semseg").endswith("label_7/0.npy")


def test_counts(nyuv2):
    with pytest.raises(ValueError, match="found 12 images, the protocol has 795"):
        MtanNpy(nyuv2, split="train")


@pytest.mark.parametrize(
    ("folder", "array", "message"),
    [
        ("image", np.full((12, 16, 3), 200.0), r"0.npy: the image runs from 200 to 200, expected 0..1"),
        ("label", np.full((12, 16), 13.0), r"0.npy: holds the id 13, expected 0..12"),
        ("label", np.full((12, 16), -2.0), r"0.npy: holds the id -2"),
        ("label", np.full((12, 16), 0.5), "whole numbers"),
        ("depth", np.ones((12, 16, 2)), r"shape \(H, W, 1\)"),
        ("normal", np.ones((12, 16, 3), np.uint8), "floating-point numbers, got uint8"),
    ],
)
def test_files_of_another_encoding_stop(nyuv2, folder, array, message):
    np.save(nyuv2 / "val" / folder / "0.npy", array)
    with pytest.raises(DecodeError, match=message):
        MtanNpy(nyuv2, split="val", check=False)[0]


def test_truncated_array_stops(nyuv2):
    path = nyuv2 / "val" / "depth" / "0.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DecodeError, match=r"0.npy: not a plain NumPy array"):
        MtanNpy(nyuv2, split="val", check=False)[0]
