"""Cityscapes: raw ids, disparity with its quirks, order, damaged files."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.core.sample import SampleKey
from mtvision.data.cityscapes import TRAIN_IDS, Cityscapes, decode_disparity, decode_instances, train_ids
from mtvision.data.decode import DecodeError
from mtvision.protocols import get_protocol


@pytest.fixture
def root(miniature, tmp_path):
    return miniature.cityscapes(tmp_path / "cityscapes")


def test_raw_ids_to_classes():
    """The protocol's table, written out."""
    void = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 255]
    raw = np.array([*TRAIN_IDS, *void], np.uint8)
    assert train_ids(raw).tolist() == [*range(19)] + [255] * len(void)
    assert sorted([*TRAIN_IDS, *void]) == [*range(34), 255]
    assert train_ids(np.array([23], np.uint8)) == 10  # sky


def test_reads_full_resolution_and_all_tasks(root):
    data = Cityscapes(root, split="train", check=False)
    raw = data.read(0)
    assert raw.image.shape == (16, 32, 3)
    assert raw.meta.extra == {"city": "aachen"}
    stem = root / "gtFine" / "train" / "aachen" / data.ids[0]
    ids = cv2.imread(f"{stem}_gtFine_labelIds.png", cv2.IMREAD_UNCHANGED)
    assert np.array_equal(raw.labels["semseg"], train_ids(ids))


def test_disparity_by_hand():
    stored = np.array([[0, 1, 2, 257, 65535]], np.uint16)
    raw = np.full_like(stored, 7, np.uint8)
    target = decode_disparity(stored, raw, invalid="target")[0, :, 0]
    assert target.tolist() == [-1, -1, 1 / 256, 1, 65534 / 256]
    ignored = decode_disparity(stored, raw, invalid="ignore")[0, :, 0]
    assert np.isnan(ignored).tolist() == [True, True, False, False, False]


def test_quirk_03_the_sky_rule_hits_rail_tracks(root):
    stored = np.array([[0, 2561, 0, 2561]], np.uint16)
    raw = np.array([[10, 10, 23, 23]], np.uint8)  # rail track, rail track, sky, sky
    published = decode_disparity(stored, raw, invalid="target")[0, :, 0]
    assert published.tolist() == [0, 0, -1, 10]
    fixed = decode_disparity(stored, raw, invalid="target", sky_fix=True)[0, :, 0]
    assert fixed.tolist() == [-1, 10, 0, 0]
    one = decode_disparity(np.array([[1]], np.uint16), np.array([[7]], np.uint8), invalid="target")
    assert one.item() == -1  # disparity 0 on disk becomes invalid too
    default, corrected = (
        Cityscapes(root, split="train", check=False, sky_fix=fix).read(0).labels["depth"]
        for fix in (False, True)
    )
    assert not np.array_equal(default, corrected)


def test_quirk_04_invalid_disparity_is_a_target_in_mtmamba_only(root):
    mtmamba = Cityscapes(root, split="train", check=False)
    assert mtmamba.invalid_disparity == "target"
    depth = mtmamba.read(0).labels["depth"]
    assert (depth == -1).any()
    assert np.isfinite(depth).all()
    protocol = get_protocol("cityscapes3d-taskprompter")
    other = Cityscapes(root, split="train", check=False, protocol=protocol).read(0).labels["depth"]
    assert np.array_equal(np.isnan(other), depth == -1)
    option = Cityscapes(root, split="train", check=False, invalid_disparity="ignore").read(0).labels["depth"]
    np.testing.assert_array_equal(option, other)


def test_quirk_15_a_sentinel_cannot_be_a_disparity(root, miniature):
    """255 marks invalid pixels in two published codes, but 255 px is a disparity."""
    stored = np.array([[255 * 256 + 1, 0]], np.uint16)
    values = decode_disparity(stored, np.full((1, 2), 7, np.uint8), invalid="ignore")[0, :, 0]
    assert values[0] == 255
    assert np.isnan(values[1])


def test_quirk_38_order_is_sorted(root):
    assert Cityscapes(root, split="train", check=False).ids == [
        "aachen_000002_000019",
        "aachen_000010_000019",
        "zurich_000001_000019",
    ]


def test_disparity_without_semseg(root):
    """The published code raises NameError here."""
    data = Cityscapes(root, split="train", check=False, tasks=["depth"])
    full = Cityscapes(root, split="train", check=False)
    assert tuple(data.read(0).labels) == ("depth",)
    np.testing.assert_array_equal(data.read(0).labels["depth"], full.read(0).labels["depth"])


def test_counts_and_frame_size(root):
    with pytest.raises(ValueError, match="found 3 images, the protocol has 2975"):
        Cityscapes(root, split="train")
    data = Cityscapes(root, split="val", check=False)
    data.check = True
    with pytest.raises(DecodeError, match=r"16x32.*1024x2048.*not a resized copy"):
        data[0]


def test_test_split_has_no_labels(root):
    with pytest.raises(UnknownNameError, match="test has no public labels"):
        Cityscapes(root, split="test")


def test_eight_bit_disparity_stops(root):
    path = next((root / "disparity" / "val").rglob("*.png"))
    cv2.imwrite(str(path), np.zeros((16, 32), np.uint8))
    with pytest.raises(DecodeError, match=r"16 bits per pixel, this one has 8.*disparity_trainvaltest.zip"):
        Cityscapes(root, split="val", check=False)[0]


def test_disparity_of_another_size_stops(root):
    path = next((root / "disparity" / "val").rglob("*.png"))
    cv2.imwrite(str(path), np.zeros((8, 16), np.uint16))
    with pytest.raises(DecodeError, match="disparity is 8x16 but the label ids are 16x32"):
        Cityscapes(root, split="val", check=False)[0]


def test_colour_or_foreign_label_files_stop(root, miniature):
    path = next((root / "gtFine" / "val").rglob("*.png"))
    miniature.write_png(path, np.full((16, 32), 200, np.uint8))
    with pytest.raises(DecodeError, match=r"ids up to 200.*labelIds"):
        Cityscapes(root, split="val", check=False)[0]


def test_missing_disparity_is_named(root):
    path = next((root / "disparity" / "val").rglob("*.png"))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"munster_000000_000019_disparity.png.*'depth'"):
        Cityscapes(root, split="val", check=False)
    assert len(Cityscapes(root, split="val", check=False, tasks=["semseg"])) == 1


def test_quirk_05_image_and_labels_differ_in_resolution_without_augmentation(root):
    preset = {"preset": "mtmamba-cityscapes", "size": (8, 16)}
    data = Cityscapes(root, split="train", check=False, transforms=preset)
    sample = data[0]
    assert sample.image.shape == (3, 8, 16)
    assert sample.labels["semseg"].shape == (16, 32)
    assert sample.labels["depth"].shape == (1, 16, 32)
    assert np.array_equal(sample.labels["semseg"].numpy(), data.read(0).labels["semseg"])
    assert np.array_equal(data[SampleKey(epoch=5, index=0)].image, sample.image)  # nothing is drawn


def test_taskprompter_resizes_the_labels_and_keeps_the_values(root):
    protocol = get_protocol("cityscapes3d-taskprompter")
    preset = {"preset": "taskprompter-cityscapes", "size": (8, 16)}
    data = Cityscapes(root, split="train", check=False, protocol=protocol, transforms=preset)
    sample, raw = data[0], data.read(0)
    assert sample.image.shape == (3, 16, 32)
    values = sample.labels["depth"].numpy()
    assert values.shape == (1, 8, 16)
    assert set(values[np.isfinite(values)]) <= set(raw.labels["depth"][np.isfinite(raw.labels["depth"])])


def test_training_on_images_with_vehicles_only(root, tmp_path):
    """Copied from TaskPrompter's loader: classes with wheels count, persons do not."""
    names = Cityscapes(root, split="train", check=False).ids
    boxes = [["person"], ["sky", "bus"], []]
    for index, name in enumerate(names):
        path = root / "gtBbox3d" / "train" / name.split("_")[0] / f"{name}_gtBbox3d.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"objects": [{"label": item} for item in boxes[index % 3]]}))
    options = {"split": "train", "check": False, "with_vehicles": True}
    assert Cityscapes(root, **options).ids == names[1::3]
    path.write_text(json.dumps([]))
    with pytest.raises(DecodeError, match="expected a JSON file with boxes under 'objects'"):
        Cityscapes(root, **options)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="gtBbox3d"):
        Cityscapes(root, **options)


def test_instance_ids_by_hand():
    stored = np.array([[26000, 26001, 24007, 7], [26, 1, 23, 26001]], np.uint16)
    label = decode_instances(stored, ("person", "car"))
    # two cars, one person, road; a group of cars and void have no label, sky is no thing
    assert label.tolist() == [[512, 513, 256, 0], [255, 255, 0, 513]]
    assert decode_instances(stored, ("person",))[0].tolist() == [0, 0, 256, 0]
    with pytest.raises(UnknownNameError, match="pedestrian"):
        decode_instances(stored, ("pedestrian",))


def test_instances_are_a_task_of_the_kendall_protocol(root):
    data = Cityscapes(root, split="train", protocol=get_protocol("cityscapes-kendall"), check=False)
    raw = data.read(0)
    label = raw.labels["instance"]
    raw_ids = raw.labels["semseg"]
    person, car = (raw_ids == 11), (raw_ids == 13)
    assert set(np.unique(label[person][label[person] != 255]) // 256) == {1}
    assert set(np.unique(label[car][label[car] != 255]) // 256) == {3}
    assert not label[raw_ids == 10].any()
    flipped = data[SampleKey(0, 0)].labels["instance"]
    assert np.array_equal(flipped.numpy(), label)


def test_8bit_instance_file_is_refused(root):
    data = Cityscapes(root, split="train", protocol=get_protocol("cityscapes-kendall"), check=False)
    path = data.label_paths(data.ids[0], "instance")[0]
    cv2.imwrite(str(path), np.zeros((16, 32), np.uint8))
    with pytest.raises(DecodeError, match="instanceIds"):
        data.read(0)
