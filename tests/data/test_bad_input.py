"""The mistakes that people make with these data sets: each stops with the file's name and what to do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from mtvision.data.cityscapes import Cityscapes
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.pascal_context import PascalContext


def truncated_png(miniature, folder):
    root = miniature.nyud(folder)
    path = root / "images" / "0003.png"
    path.write_bytes(path.read_bytes()[:-20])
    return lambda: NYUDv2(root, split="train", check=False)[0], path, "Copy or unpack it again"


def mat_of_another_structure(miniature, folder):
    root = miniature.pascal(folder)
    path = root / "pascal-context" / "trainval" / "2008_000008.mat"
    savemat(path, {"labels": np.zeros((18, 24))})
    return lambda: PascalContext(root, split="train", check=False)[0], path, "Replace it by PASCAL-Context"


def list_that_names_a_missing_image(miniature, folder):
    root = miniature.nyud(folder)
    with (root / "gt_sets" / "val.txt").open("a") as file:
        file.write("1450\n")
    path = root / "images" / "1450.png"
    # its labels do not exist either, and are looked for first
    return (
        lambda: NYUDv2(root, split="val", check=False, missing_labels="absent"),
        path,
        "How to get the data",
    )


def frames_of_the_copy_with_another_size(miniature, folder):
    root = miniature.nyud(folder)
    data = NYUDv2(root, split="train", check=False)
    data.check = True  # the miniature has too few images to be opened with the check
    return lambda: data[0], root / "images" / "0003.png", "Take the archive linked by"


def label_of_another_size(miniature, folder):
    root = miniature.nyud(folder)
    path = root / "segmentation" / "0003.png"
    miniature.write_png(path, np.ones((34, 46), np.uint8))
    return (
        lambda: NYUDv2(root, split="train", check=False)[0],
        path,
        "Take labels and images from one release",
    )


def depth_of_16_bits_stored_in_8(miniature, folder):
    root = miniature.cityscapes(folder)
    path = next((root / "disparity" / "val").rglob("*.png"))
    cv2.imwrite(str(path), np.zeros((16, 32), np.uint8))
    return lambda: Cityscapes(root, split="val", check=False)[0], path, "take the file from disparity_"


MISTAKES = (
    truncated_png,
    mat_of_another_structure,
    list_that_names_a_missing_image,
    frames_of_the_copy_with_another_size,
    label_of_another_size,
    depth_of_16_bits_stored_in_8,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda item: item.__name__)
def test_it_stops_with_the_file_and_the_remedy(miniature, tmp_path, mistake):
    use, path, remedy = mistake(miniature, tmp_path / "data")
    with pytest.raises((OSError, ValueError)) as caught:
        use()
    message = " ".join(str(caught.value).split())
    assert str(path) in message
    assert remedy in message
