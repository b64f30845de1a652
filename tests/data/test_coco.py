"""CocoDataset on hand-made annotations: polygons, RLE, crowds and panoptic files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from mtvision.core.naming import UnknownNameError
from mtvision.core.task import IGNORE
from mtvision.data.check.rules import judge
from mtvision.data.check.statistics import collect
from mtvision.data.coco import CROWD, CocoDataset
from mtvision.data.decode import DecodeError
from mtvision.protocols import own_protocol

H, W = 20, 30
CATEGORIES = [{"id": 17, "name": "cat"}, {"id": 3, "name": "car"}, {"id": 90, "name": "grass"}]
NAMES = ("car", "cat", "grass")


def protocol(names=NAMES, **tasks):
    return own_protocol("coco-like", {"semseg": {"class_names": names}, **tasks})


def box(top, left, bottom, right):
    mask = np.zeros((H, W), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def polygon(top, left, bottom, right):
    return [[left, top, right, top, right, bottom, left, bottom]]


def write(tmp_path, annotations, **changes):
    (tmp_path / "images").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(tmp_path / "images" / name)
    content = {
        "images": [
            {"id": 5, "file_name": "a.png", "height": H, "width": W},
            {"id": 9, "file_name": "b.png", "height": H, "width": W},
        ],
        "categories": CATEGORIES,
        "annotations": annotations,
    } | changes
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path / "images", tmp_path / "instances.json"


def annotation(number, category, segmentation, image=5, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
    }


def compressed(mask):
    code = rle.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def uncompressed(mask):
    flat = mask.ravel(order="F")
    counts, value, run = [], 0, 0
    for pixel in flat:
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return {"size": [H, W], "counts": [*counts, run]}


@pytest.mark.parametrize("encode", [compressed, uncompressed])
def test_segments_are_painted_small_on_large(tmp_path, encode):
    files = write(
        tmp_path,
        [
            annotation(1, 17, encode(box(4, 4, 8, 8))),
            annotation(2, 3, encode(box(2, 2, 15, 20))),
            annotation(3, 90, encode(box(10, 0, 20, 30)), crowd=1),
        ],
    )
    dataset = CocoDataset(*files, protocol=protocol())
    assert dataset.ids == ["a.png", "b.png"]
    expected = np.full((H, W), IGNORE)
    expected[2:15, 2:20] = 0  # car, over the crowd
    expected[4:8, 4:8] = 1  # cat
    np.testing.assert_array_equal(dataset.read(0).labels["semseg"], expected)
    segments = dataset.segments(0)
    assert segments.class_of == (0, 1)
    assert (segments.instances == CROWD).sum() == 10 * 30 - 5 * 18
    assert (segments.instances[4:8, 4:8] == 2).all()
    assert (segments.annotated == (segments.instances != 0)).all()
    assert (dataset.read(1).labels["semseg"] == IGNORE).all()  # nothing annotated


def test_polygons(tmp_path):
    files = write(tmp_path, [annotation(1, 3, polygon(5, 6, 15, 16))])
    label = CocoDataset(*files, protocol=protocol()).read(0).labels["semseg"]
    np.testing.assert_array_equal(label == 0, box(5, 6, 15, 16).astype(bool))


def test_background_is_a_class_if_wanted(tmp_path):
    files = write(tmp_path, [annotation(1, 3, polygon(5, 6, 15, 16))])
    dataset = CocoDataset(*files, protocol=protocol(("void", *NAMES)), background="void")
    label = dataset.read(0).labels["semseg"]
    assert set(np.unique(label)) == {0, 1}
    with pytest.raises(UnknownNameError, match="background class 'viod'"):
        CocoDataset(*files, protocol=protocol(("void", *NAMES)), background="viod")


def test_edges_and_foreground(tmp_path):
    files = write(
        tmp_path,
        [
            annotation(1, 3, compressed(box(5, 5, 15, 12))),
            annotation(2, 3, compressed(box(5, 12, 15, 20))),
            annotation(3, 3, compressed(box(0, 25, 20, 30)), crowd=1),
        ],
    )
    labels = {"semseg": "classes", "edge": "instance_edges", "saliency": "foreground"}
    dataset = CocoDataset(*files, protocol=protocol(edge={}, saliency={}), labels=labels)
    raw = dataset.read(0)
    assert raw.labels["edge"][8:12, 11:13].sum() >= 4  # between two cars, where classes see nothing
    by_class = {"semseg": "classes", "edge": "class_edges"}
    classes = CocoDataset(*files, protocol=protocol(edge={}), labels=by_class).read(0).labels["edge"]
    assert classes[8:12, 11:13].sum() == 0
    saliency = raw.labels["saliency"]
    assert (saliency[5:15, 5:20] == 1).all()
    assert (saliency[:, 25:] == IGNORE).all()
    assert saliency[0, 0] == 0
    dataset[0]


def test_panoptic(tmp_path):
    images, path = write(
        tmp_path,
        [
            {
                "image_id": 5,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 70000, "category_id": 90, "iscrowd": 0},
                    {"id": 2, "category_id": 17, "iscrowd": 0},
                    {"id": 3, "category_id": 3, "iscrowd": 1},
                ],
            }
        ],
    )
    ids = np.zeros((H, W), np.int64)
    ids[:10], ids[10:12], ids[12:14] = 70000, 2, 3
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    (tmp_path / "instances").mkdir()
    Image.fromarray(colours).save(tmp_path / "instances/a.png")
    dataset = CocoDataset(images, path, protocol=protocol())
    label = dataset.read(0).labels["semseg"]
    assert (label[:10] == 2).all()
    assert (label[10:12] == 1).all()
    assert (label[12:] == IGNORE).all()
    assert len(dataset.files()) == 4
    colours[0, 0] = 9
    Image.fromarray(colours).save(tmp_path / "instances/a.png")
    with pytest.raises(DecodeError, match=r"a.png: segment 592137 is not in segments_info"):
        dataset.read(0)
    with pytest.raises(FileNotFoundError, match="panoptic="):
        CocoDataset(images, path, panoptic=tmp_path / "gone", protocol=protocol())
    Image.fromarray(0 * colours).save(tmp_path / "instances/a.png")
    with pytest.raises(DecodeError, match=r"a\.png: holds no segment, expected some of the 3"):
        dataset.read(0)


def test_panoptic_files_that_lack_some_of_their_segments_are_said(tmp_path):
    segments = [{"id": number, "category_id": 17, "iscrowd": number == 4} for number in (1, 2, 3, 4)]
    images, path = write(tmp_path, [{"image_id": 5, "file_name": "a.png", "segments_info": segments}])
    colours = np.zeros((H, W, 3), np.uint8)
    colours[:10, :, 0], colours[10:, :, 0] = 1, 2
    (tmp_path / "instances").mkdir()
    Image.fromarray(colours).save(tmp_path / "instances/a.png")
    dataset = CocoDataset(images, path, protocol=protocol())
    assert dataset.segments(0).empty == 2
    assert dataset.read(0).meta.extra == {"objects_without_pixel": 2}
    statistics = collect(dataset, range(len(dataset)))
    found = [item.text for item in judge(dataset, statistics) if item.level == "warning"]
    assert "1 images have objects in their annotations that cover no pixel, 2 in all: a.png." in found
    colours[0, :2, 0] = 3, 4
    Image.fromarray(colours).save(tmp_path / "instances/a.png")
    assert not collect(dataset, [0]).unseen


def test_photographs_of_12_bits_are_scaled(tmp_path):
    images, path = write(tmp_path, [])
    stored = np.full((H, W), 4095, np.uint16)
    stored[0, 0] = 0
    for picture in images.glob("*.png"):
        Image.fromarray(stored).save(picture)
    dataset = CocoDataset(images, path, protocol=protocol())
    assert dataset.read(0).image.max() == 255
    assert "12 bits" in dataset.parameters()["images"]


def test_class_names(tmp_path):
    _, path = write(tmp_path, [])
    assert CocoDataset.class_names(path) == NAMES


def test_classes_and_categories_must_match(tmp_path):
    files = write(tmp_path, [annotation(1, 90, polygon(5, 6, 15, 16))])
    with pytest.raises(ValueError, match=r"Classes without category: \['dog'\].*class_names"):
        CocoDataset(*files, protocol=protocol((*NAMES, "dog")))
    with pytest.raises(ValueError, match=r"categories without class: \['grass'\].*other='ignore'"):
        CocoDataset(*files, protocol=protocol(("car", "cat")))
    dataset = CocoDataset(*files, protocol=protocol(("car", "cat")), other="ignore")
    assert (dataset[0].labels["semseg"] == IGNORE).all()


def test_broken_files(tmp_path):
    files = write(tmp_path, [annotation(1, 3, polygon(5, 6, 15, 16))])
    path = files[1]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        CocoDataset(tmp_path / "gone", path, protocol=protocol())
    with pytest.raises(FileNotFoundError, match=r"gone.json: no such file"):
        CocoDataset(files[0], tmp_path / "gone.json", protocol=protocol())
    whole = path.read_text()
    path.write_text(whole[:50])
    with pytest.raises(DecodeError, match="not a complete JSON file"):
        CocoDataset(*files, protocol=protocol())
    path.write_text("{}")
    with pytest.raises(DecodeError, match="has no 'images', 'annotations', 'categories'"):
        CocoDataset(*files, protocol=protocol())


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            annotation(1, 4, polygon(5, 6, 15, 16)),
            r"annotations\[0\].category_id is 4, which 'categories' does not list",
        ),
        (annotation(1, 3, polygon(5, 6, 15, 16), image=6), "belongs to image 6, which is not listed"),
        ({"id": 1, "category_id": 3}, r"annotations\[0\] has no 'image_id'"),
    ],
)
def test_broken_annotations(tmp_path, item, message):
    files = write(tmp_path, [item])
    with pytest.raises(DecodeError, match=message):
        CocoDataset(*files, protocol=protocol())


@pytest.mark.parametrize("segmentation", [None, {"size": [H, W]}, "x", [[1, 2]]])
def test_broken_segmentation(tmp_path, segmentation):
    files = write(tmp_path, [annotation(7, 3, segmentation)])
    with pytest.raises(DecodeError, match=r"instances.json: 1 mistake.*\n.*annotations\[0\]\.segmentation"):
        CocoDataset(*files, protocol=protocol())


def test_sizes_must_agree(tmp_path):
    files = write(tmp_path, [annotation(7, 3, compressed(box(0, 0, 4, 4)) | {"size": [10, 60]})])
    with pytest.raises(DecodeError, match=r"annotations\[0\].segmentation.size is 10x60, its image 20x30"):
        CocoDataset(*files, protocol=protocol())
    files = write(tmp_path, [annotation(7, 3, compressed(box(0, 0, 4, 4)))])
    Image.fromarray(np.zeros((H + 1, W, 3), np.uint8)).save(tmp_path / "images/b.png")
    with pytest.raises(ValueError, match=r"image 'b.png': the semseg label is 20x30"):
        CocoDataset(*files, protocol=protocol())[1]


def test_label_options(tmp_path):
    files = write(tmp_path, [])
    with pytest.raises(ValueError, match="no label for the task edge"):
        CocoDataset(*files, protocol=protocol(edge={}))
    with pytest.raises(UnknownNameError, match="instance_edges"):
        CocoDataset(*files, protocol=protocol(edge={}), labels={"semseg": "classes", "edge": "edges"})
    with pytest.raises(ValueError, match="'instance_edges' is no label for the task 'semseg'"):
        CocoDataset(*files, protocol=protocol(), labels={"semseg": "instance_edges"})
    assert CocoDataset(*files, protocol=protocol(edge={}), tasks=["semseg"]).protocol.task_names == (
        "semseg",
    )
