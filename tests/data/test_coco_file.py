"""The check of a whole COCO file: every kind of mistake, the two policies, encodings and limits."""

from __future__ import annotations

import codecs
import copy
import gzip
import json
import logging
import shutil
from pathlib import Path

import data_problems as problems
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from mtvision.core.naming import UnknownNameError
from mtvision.data.check import collect, judge
from mtvision.data.coco import CocoDataset
from mtvision.data.coco.masks import find_mistake, find_sum_mistakes, mask_of, unpack
from mtvision.data.coco.records import Limits
from mtvision.data.decode import DecodeError
from mtvision.data.joint import JointDataset
from mtvision.protocols import own_protocol

H, W = 20, 30
PROTOCOL = own_protocol("coco-like", {"semseg": {"class_names": ("car", "cat")}})
SQUARE = [[2, 2, 20, 2, 20, 15, 2, 15]]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three pictures; tests put JSON files elsewhere."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a.png", "b.png", "sub/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def square(images, tmp_path_factory):
    """Class map of each image of the valid file."""
    path = write(tmp_path_factory.mktemp("valid"), valid())
    return dataset(images, path).read(0).labels["semseg"]


def valid():
    """Three images with an annotation each."""
    return {
        "images": [
            {"id": number, "file_name": name, "height": H, "width": W}
            for number, name in ((5, "a.png"), (9, "b.png"), (11, "sub/c.png"))
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 3, "name": "car"}],
        "annotations": [
            {
                "id": k,
                "image_id": image,
                "category_id": 3,
                "segmentation": copy.deepcopy(SQUARE),
                "iscrowd": 0,
            }
            for k, image in ((1, 5), (2, 9), (3, 11))
        ],
    }


def write(tmp_path, content, name="instances.json"):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def dataset(images, path, **options):
    return CocoDataset(images, path, protocol=PROTOCOL, **options)


def changed(place, value):
    """A valid file with one value changed: `annotations.1.iscrowd`; `...` removes it."""
    content = valid()
    *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    node = content
    for key in parents:
        node = node[key]
    if value is ...:
        del node[last]
    elif isinstance(node, list) and last == len(node):
        node.append(value)
    else:
        node[last] = value
    return content


def code(counts, size=(H, W)):
    return {"size": list(size), "counts": counts}


MISTAKES = [
    ("images.1", None, "images[1] is None; expected an object"),
    ("images.1.id", ..., "images[1] has no 'id'"),
    ("images.1.id", True, "images[1].id is True; expected an integer or a text"),
    ("images.1.id", 9.5, "images[1].id is 9.5"),
    ("images.1.id", float("nan"), "images[1].id is nan"),
    ("images.1.id", "", "images[1].id is ''"),
    ("images.1.id", "9", "annotations[1] belongs to image 9, which is not listed"),
    ("images.1.id", 5, "images[1].id is 5; expected another"),
    ("images.1.height", 0, "images[1].height is 0; expected a positive integer"),
    ("images.1.height", -20, "images[1].height is -20"),
    ("images.1.width", "30", "images[1].width is '30'"),
    ("images.1.width", 30.5, "images[1].width is 30.5"),
    ("images.1.width", 10**9, "images[1] is 20x1000000000; at most"),
    ("images.1.file_name", None, "images[1].file_name is None; expected a text"),
    (
        "images.1.file_name",
        "../b.png",
        "images[1].file_name is '../b.png'; expected a path inside the folder",
    ),
    ("images.1.file_name", "sub/../../b.png", "expected a path inside the folder"),
    ("images.1.file_name", "/etc/passwd", "expected a path inside the folder"),
    ("images.1.file_name", "C:/b.png", "expected a path inside the folder"),
    ("images.1.file_name", "sub\\c.png", "expected '/' between folders"),
    ("images.1.file_name", "b.png\x00", "expected a text"),
    ("images.1.file_name", "\ud800.png", "expected a text"),
    ("images.1.file_name", "B.png", "images[1].file_name is 'B.png'; expected a file in"),
    ("images.1.file_name", "sub", "expected a file in"),
    (
        "images.1.file_name",
        "./a.png",
        "images[1].file_name is './a.png'; expected a name of its own; 2 images have it",
    ),
    ("categories.1", [], "categories[1] is []; expected an object"),
    ("categories.1.name", ..., "categories[1] has no 'name'"),
    ("categories.1.name", 3, "categories[1].name is 3; expected a text"),
    ("categories.1.name", " ", "categories[1].name is ' '"),
    ("categories.1.name", "cat", "categories[1].name is 'cat'; expected another; categories[0] has it"),
    ("categories.1.id", 17, "categories[1].id is 17; expected another; 'cat' has it"),
    ("categories.1.id", "3", "categories[1].id is '3'; expected an integer"),
    ("categories.1.id", False, "categories[1].id is False"),
    ("annotations.1", "x", "annotations[1] is 'x'; expected an object"),
    (
        "annotations.1",
        {"id": 2, "image_id": 9, "category_id": 3, "bbox": [2, 2, 18, 13], "iscrowd": 0},
        "annotations[1].segmentation is None; expected a list of polygons",
    ),
    (
        "annotations.1.segmentation",
        [[0.1, 0.1, 0.7, 0.1, 0.7, 0.8]],
        "polygon in shares of the image: annotations[1].segmentation[0] has coordinates up to 0.8",
    ),
    ("annotations.1.segmentation", [[0, 0, 1, 0, 1, 1]], "Coordinates count in pixels"),
    ("annotations.1.image_id", ..., "annotations[1] has no 'image_id'"),
    ("annotations.1.image_id", 12, "annotations[1] belongs to image 12, which is not listed"),
    ("annotations.1.image_id", "9", "annotations[1] belongs to image '9', which is not listed"),
    ("annotations.1.image_id", True, "annotations[1].image_id is True; expected the id of an image"),
    ("annotations.1.image_id", [9], "annotations[1].image_id is [9]"),
    ("annotations.1.category_id", 4, "annotations[1].category_id is 4, which 'categories' does not list"),
    ("annotations.1.category_id", "3", "annotations[1].category_id is '3', which"),
    ("annotations.1.category_id", True, "annotations[1].category_id is True, which"),
    ("annotations.1.category_id", 3.5, "annotations[1].category_id is 3.5, which"),
    ("annotations.1.id", 1, "annotations[1].id is 1; expected another; a different annotation has it"),
    ("annotations.1.id", None, "annotations[1].id is None; expected an integer or a text"),
    ("annotations.1.id", 2.5, "annotations[1].id is 2.5"),
    ("annotations.1.iscrowd", "0", "annotations[1].iscrowd is '0'; expected 0 or 1"),
    ("annotations.1.iscrowd", 2, "annotations[1].iscrowd is 2"),
    ("annotations.1.iscrowd", None, "annotations[1].iscrowd is None"),
    ("annotations.1.segmentation", ..., "annotations[1].segmentation is None; expected a list of polygons"),
    ("annotations.1.segmentation", [], "no mask: annotations[1].segmentation is []"),
    ("annotations.1.segmentation", None, "annotations[1].segmentation is None; expected a list of polygons"),
    (
        "annotations.1.segmentation",
        SQUARE[0],
        "annotations[1].segmentation[0] is 2; expected a list of numbers",
    ),
    ("annotations.1.segmentation", [SQUARE], "annotations[1].segmentation[0] has 1 numbers"),
    (
        "annotations.1.segmentation",
        [[[2, 2], [9, 2], [9, 9], [2, 9], [1, 5], [0, 1]]],
        "is [2, 2]; expected a",
    ),
    ("annotations.1.segmentation", [[2, 2, 9, 9]], "has 4 numbers; expected an even number, at least 6"),
    ("annotations.1.segmentation", [[2, 2, 9, 9, 2, 9, 1]], "has 7 numbers"),
    ("annotations.1.segmentation", [SQUARE[0], []], "annotations[1].segmentation[1] has 0 numbers"),
    (
        "annotations.1.segmentation.0.3",
        float("nan"),
        "annotations[1].segmentation[0][3] is nan; expected a finite",
    ),
    ("annotations.1.segmentation.0.3", float("-inf"), "annotations[1].segmentation[0][3] is -inf"),
    ("annotations.1.segmentation.0.3", True, "annotations[1].segmentation[0][3] is True"),
    ("annotations.1.segmentation.0.3", "2", "annotations[1].segmentation[0][3] is '2'"),
    ("annotations.1.segmentation.0.3", 10**400, "annotations[1].segmentation[0][3] is 1000"),
    (
        "annotations.1.segmentation.0.3",
        31,
        "annotations[1].segmentation[0] reaches from y = 2 to 31; expected 0",
    ),
    ("annotations.1.segmentation.0.4", 1e9, "annotations[1].segmentation[0] reaches from x = 2 to 1e+09"),
    ("annotations.1.segmentation", [[31, 1, 33, 1, 33, 9]], "reaches from x = 31 to 33; expected 0 to 30"),
    ("annotations.1.segmentation", {"counts": [H * W]}, "annotations[1].segmentation.size is None"),
    ("annotations.1.segmentation", code([H * W], (W, H)), "(height and width are exchanged)"),
    (
        "annotations.1.segmentation",
        code([H * W], (H, 31)),
        "annotations[1].segmentation.size is 20x31, its image",
    ),
    ("annotations.1.segmentation", code([H * W], (H,)), "annotations[1].segmentation.size is [20]; expected"),
    ("annotations.1.segmentation", code(None), "annotations[1].segmentation.counts is None; expected a list"),
    (
        "annotations.1.segmentation",
        code([5, 9]),
        "annotations[1].segmentation.counts covers 14 pixels; expected 20",
    ),
    ("annotations.1.segmentation", code([]), "covers 0 pixels"),
    (
        "annotations.1.segmentation",
        code([-5, H * W + 5]),
        "annotations[1].segmentation.counts[0] is -5; expected a",
    ),
    ("annotations.1.segmentation", code([0.5, H * W - 0.5]), "annotations[1].segmentation.counts[0] is 0.5"),
    ("annotations.1.segmentation", code(["5", H * W - 5]), "annotations[1].segmentation.counts[0] is '5'"),
    ("annotations.1.segmentation", code([True, H * W - 1]), "annotations[1].segmentation.counts[0] is True"),
    ("annotations.1.segmentation", code([0] * (2 * H * W + 3)), "expected a list of counts"),
    (
        "annotations.1.segmentation",
        code(""),
        "annotations[1].segmentation.counts is ''; expected a compressed",
    ),
    ("annotations.1.segmentation", code("PPPPP"), "expected a compressed string"),
    ("annotations.1.segmentation", code("~~~"), "expected a compressed string"),
    ("annotations.1.segmentation", code("ooooooooo0"), "expected a compressed string"),
    ("annotations.1.segmentation", code("5PPP"), "expected a compressed string"),
    ("annotations.1.segmentation", code("55"), "annotations[1].segmentation.counts covers 10 pixels"),
    ("annotations.1.segmentation", code("hb0O1"), "holds the count -1"),
    ("annotations.1.segmentation", code("0" * 5000), "expected a compressed string"),
]


def row_of(place, value, text):
    """The problem that a mistake is an example of."""
    if place.startswith("categories"):
        return problems.COCO_CATEGORIES
    if place.startswith("images"):
        return problems.COCO_STRANGERS if "not listed" in text else problems.COCO_IMAGES
    if "segmentation" in place or "segmentation" in text:
        if place == "annotations.1" or value in (..., None, []):
            return problems.COCO_NO_MASK
        return problems.COCO_RUNS if isinstance(value, dict) else problems.COCO_POLYGONS
    return problems.COCO_STRANGERS if place.endswith(("image_id", "category_id")) else problems.COCO_FIELDS


@pytest.mark.parametrize(
    ("place", "value", "text"), [pytest.param(*case, marks=row_of(*case)) for case in MISTAKES]
)
def test_mistakes_are_refused_with_their_place(images, tmp_path, place, value, text):
    path = write(tmp_path, changed(place, value))
    with pytest.raises(DecodeError) as caught:
        dataset(images, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)


@pytest.mark.parametrize(("place", "value", "text"), MISTAKES)
@problems.COCO_SKIP
def test_skip_leaves_out_the_images_of_a_mistake(images, square, tmp_path, place, value, text):
    path = write(tmp_path, changed(place, value))
    if place.startswith("categories"):
        with pytest.raises(DecodeError, match="nothing can be left out"):
            dataset(images, path, mistakes="skip")
        return
    sound = dataset(images, path, mistakes="skip")
    assert sound.remarks()[0].startswith(f"{path}: left out ")
    assert text in " ".join(sound.remarks())
    for index, name in enumerate(sound.ids):
        dangling = name == "b.png" or (place.startswith("images") and name != "sub/c.png")
        if not dangling:
            np.testing.assert_array_equal(sound.read(index).labels["semseg"], square)
    assert "sub/c.png" in sound.ids


VARIATIONS = [
    ("images.1.id", 9.0),
    ("images.1.height", 20.0),
    ("annotations.1.image_id", 9.0),
    ("annotations.1.category_id", 3.0),
    ("annotations.1.id", "two"),
    ("annotations.1.id", 900100448263),
    ("annotations.1.iscrowd", False),
    ("annotations.1.iscrowd", ...),
    ("annotations.1.area", None),
    ("annotations.1.bbox", [2, 2, 18, 13]),
    ("annotations.1.segmentation", [[2, 2, 20, 2, 20, 15, 2, 15, 2, 2]]),
    ("annotations.1.segmentation", [[2.0, 2.0, 20.0, 2, 20, 15, 2, 15]]),
]
ODDITIES = [
    ("annotations.1.id", ..., "annotations[1] has no 'id'"),
    ("annotations.1.bbox", [2, 2, 18], "annotations[1].bbox is [2, 2, 18]; expected [x, y, width, height]"),
    ("annotations.1.bbox", [2, 2, -18, 13], "annotations[1].bbox is [2, 2, -18, 13]"),
    ("annotations.1.bbox", [2, 2, float("nan"), 13], "annotations[1].bbox is [2, 2, nan, 13]"),
    ("annotations.1.bbox", "2 2 18 13", "annotations[1].bbox is '2 2 18 13'"),
    ("annotations.1.bbox", [22, 2, 5, 13], "of the polygons, which begin at 2, 2"),
    ("annotations.1.area", "234", "annotations[1].area is '234'; expected a number of pixels"),
    ("annotations.1.area", -3, "annotations[1].area is -3"),
    ("annotations", [], "annotations is []. No image has a label."),
]


@pytest.mark.parametrize(("place", "value"), VARIATIONS)
def test_harmless_variations_give_the_same_labels(images, square, tmp_path, place, value):
    found = dataset(images, write(tmp_path, changed(place, value)))
    assert found.remarks() == ()
    assert found.ids == ["a.png", "b.png", "sub/c.png"]
    for index in range(3):
        np.testing.assert_array_equal(found.read(index).labels["semseg"], square)


@pytest.mark.parametrize(("place", "value", "text"), ODDITIES)
def test_oddities_are_accepted_and_said(images, tmp_path, place, value, text, caplog):
    path = write(tmp_path, changed(place, value))
    found = dataset(images, path)
    assert len(found) == 3
    assert any(text in remark for remark in found.remarks())
    assert any(str(path) in message for message in caplog.messages)


def test_all_mistakes_are_listed_with_counts_and_remedies(images, tmp_path):
    content = valid()
    content["images"][0]["width"] = -1
    content["annotations"][0]["category_id"] = 4
    content["annotations"][0]["iscrowd"] = "no"
    for item in content["annotations"]:
        item["segmentation"] = [[1, 2]]
    more = [{"image_id": 9, "category_id": 3, "segmentation": []} for _ in range(5)]
    path = write(tmp_path, content | {"annotations": content["annotations"] + more})
    with pytest.raises(DecodeError) as caught:
        dataset(images, path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 10 mistake(s)."
    assert any("5 x no mask: annotations[3].segmentation is []" in line for line in lines)
    assert any(
        "annotations[5]" in line and "; and 2 more. Dense labels need polygons" in line for line in lines
    )
    assert any(line.startswith("  2 x bad polygon: ") for line in lines)
    assert any("iscrowd is 'no'" in line and "images[0].width is -1" in line for line in lines)
    with pytest.raises(
        DecodeError, match="skip' leaves out 3 of 3 images and 0 annotations, so nothing remains"
    ):
        dataset(images, path, mistakes="skip")


def test_a_size_that_is_not_known_is_one_mistake(images, tmp_path):
    with pytest.raises(DecodeError) as caught:
        dataset(images, write(tmp_path, changed("images.1.height", 0)))
    first, _, last = str(caught.value).splitlines()
    assert first.endswith("instances.json: 1 mistake(s).")
    assert last == "  Correct the file; mistakes='skip' leaves out 1 of 3 images and 0 annotations."


def test_skip_says_what_it_left_out(images, tmp_path, caplog):
    content = valid()
    content["annotations"][1]["segmentation"] = []
    content["annotations"].append(content["annotations"][0])
    content["annotations"].append({**content["annotations"][0], "id": 8, "image_id": 77})
    path = write(tmp_path, content)
    with caplog.at_level(logging.WARNING, logger="mtvision"):
        found = dataset(images, path, mistakes="skip")
    assert found.ids == ["a.png", "sub/c.png"]
    (line,) = caplog.messages
    assert line == (
        f"{path}: left out 1 of 3 images and 2 annotations: 1 x no mask, 1 x repeated id or name, "
        "1 x annotation of an image that is not listed (mistakes='skip')."
    )
    findings = judge(found, collect(found, range(2), workers=0))
    assert [item.text for item in findings][: len(found.remarks())] == list(found.remarks())
    assert {item.level for item in findings[: len(found.remarks())]} == {"warning"}
    assert found.segments(0).class_of == (0,)  # the repeated annotation counts once


def test_an_image_that_is_listed_twice_is_left_out_whole(images, tmp_path):
    content = valid()
    content["images"].append({**content["images"][0], "id": None})
    found = dataset(images, write(tmp_path, content), mistakes="skip")
    assert found.ids == ["b.png", "sub/c.png"]


def test_remarks_of_the_parts_of_a_joint_data_set(images, tmp_path):
    path = write(tmp_path, changed("annotations.1.area", -3))
    part = {"type": "CocoDataset", "name": "own", "images": str(images), "annotations": str(path)}
    joint = JointDataset(parts=[part], protocol=PROTOCOL, split="train", transforms="tensor")
    assert [remark[:16] for remark in joint.remarks()] == ["own: 1 x odd area"[:16]]


def test_policies_and_limits_are_checked(images, tmp_path):
    path = write(tmp_path, valid())
    with pytest.raises(UnknownNameError, match="value of mistakes= 'skpi'"):
        dataset(images, path, mistakes="skpi")
    with pytest.raises(UnknownNameError, match="limit 'pionts'"):
        dataset(images, path, limits={"pionts": 3})
    with pytest.raises(ValueError, match=r"limits\['points'\] is 'many'; expected a number"):
        dataset(images, path, limits={"points": "many"})


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"file_bytes": 100}, "the limit is 100"),
        ({"entries": 2}, "'images' has 3 entries; the limit is 2"),
        ({"pixels": 599}, "at most 599 pixels (limit 'pixels')"),
        ({"points": 3}, "has over 3 points (limit 'points')"),
        ({"outline": 60}, "is an outline of over 60 pixels (limit 'outline')"),
    ],
)
def test_limits(images, tmp_path, limits, text):
    path = write(tmp_path, valid())
    assert len(dataset(images, path, limits={name: value * 1000 for name, value in limits.items()})) == 3
    with pytest.raises(DecodeError) as caught:
        dataset(images, path, limits=limits)
    assert text in str(caught.value)
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "packed.json.gz").write_bytes(packed)
    if "file_bytes" in limits:
        with pytest.raises(DecodeError, match=f"{len(packed)} bytes or more; the limit is 100"):
            dataset(images, tmp_path / "packed.json.gz", limits={"file_bytes": 100})
        with pytest.raises(DecodeError, match="501 bytes or more; the limit is 500"):
            dataset(images, tmp_path / "packed.json.gz", limits={"file_bytes": 500})


def test_polygons_may_leave_the_image_a_little(images, tmp_path):
    content = changed("annotations.1.segmentation", [[-8, -8, 39, 2, 39, 29, 2, 28]])
    found = dataset(images, write(tmp_path, content))
    polygon = rle.merge(rle.frPyObjects(content["annotations"][1]["segmentation"], H, W))
    np.testing.assert_array_equal(found[1].labels["semseg"] == 0, rle.decode([polygon])[..., 0])
    content = changed("annotations.1.segmentation", [[-8, -8, 55, 2, 39, 29, 2, 28]])
    assert len(dataset(images, write(tmp_path, content), limits={"outside": 1})) == 3


ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
    "gzip": lambda text: gzip.compress(text.encode()),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@problems.COCO_TEXT
def test_encodings(images, tmp_path, encode):
    content = valid()
    content["categories"][0]["name"] = "Kätzchen"
    path = tmp_path / "instances.json"
    path.write_bytes(encode(json.dumps(content, ensure_ascii=False)))
    assert CocoDataset.class_names(path) == ("car", "Kätzchen")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (b"\x00" * 900, "the file is empty"),
        (b"{", "not a complete JSON file"),
        (b"[" * 100_000, "not a complete JSON file"),
        (b"9" * 5000, "not a complete JSON file"),
        (
            '{\n"images": "Kätzchen"}'.encode("latin-1"),
            "line 2: not UTF-8 (byte 0xe4), perhaps Latin-1 or Windows-1252. Save the file as UTF-8.",
        ),
        ('{"images": "Kätzchen"}'.encode("utf-16")[:-1], "no text, expected UTF-8. It is a binary file or"),
        ("<html>Kätzchen".encode("latin-1"), "a web page instead of the file"),
        (b"PK\x03\x04....", "this is a zip archive"),
        (gzip.compress(b"{}" * 5000, mtime=0)[:30], "cannot be read"),
        (b"\x1f\x8b" + b"x" * 50, "cannot be read"),
        (b'{"images": [], "images": []}', "one object has the key 'images' twice"),
        (b"[]", "expected a COCO file, an object with 'images', 'annotations', 'categories'; found []"),
        (b'[{"image_id": 5, "score": 0.5}]', "COCO results"),
        (b"null", "expected a COCO file"),
        (b'"x"', "expected a COCO file"),
        (b'{"images": [], "annotations": []}', "it has no 'categories'"),
        (
            b'{"images": {}, "annotations": [], "categories": []}',
            "'images' is {}; expected a list of objects",
        ),
        (
            b'{"images": [], "annotations": [], "categories": []}',
            "categories.length is 0; expected at least one",
        ),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "images.length is 0"),
    ],
)
@problems.COCO_FILES
def test_what_is_no_coco_file(images, tmp_path, content, text):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    for policy in ("error", "skip"):
        with pytest.raises(DecodeError) as caught:
            dataset(images, path, mistakes=policy)
        assert str(path) in str(caught.value)
        assert text in str(caught.value)


def test_a_folder_is_no_file(images, tmp_path):
    with pytest.raises(DecodeError, match="cannot be read"):
        dataset(images, tmp_path)


def test_text_ids_of_images(images, tmp_path):
    content = valid()
    for item in content["images"]:
        item["id"] = f"frankfurt_{item['id']}"
    for item in content["annotations"]:
        item["image_id"] = f"frankfurt_{item['image_id']}"
    found = dataset(images, write(tmp_path, content))
    assert [(found[index].labels["semseg"] == 0).any().item() for index in range(3)] == [True] * 3


@pytest.mark.parametrize("more", [254, 300, 1000])
@problems.WIDE_COCO
def test_too_many_categories(more, images, tmp_path):
    content = valid()
    content["categories"] += [{"id": 100 + number, "name": f"class {number}"} for number in range(more)]
    path = write(tmp_path, content)
    names = CocoDataset.class_names(path)
    many = own_protocol("many", {"edge": {}})
    with pytest.raises(ValueError, match=f"{more + 2} classes; class maps of 8 bits hold 255"):
        CocoDataset(images, path, labels={"edge": "instance_edges"}, protocol=many)
    assert len(names) == more + 2
    assert len(dataset(images, path, other="ignore")) == 3


@pytest.fixture
def panoptic(images, tmp_path):
    """Content of a panoptic file with a PNG of two segments for each image."""
    content = valid()
    ids = np.zeros((H, W, 3), np.uint8)
    ids[:10, :, 0], ids[10:15, :, 0] = 1, 2
    for name in ("a.png", "b.png", "sub/c.png"):
        path = tmp_path / "panoptic" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids).save(path)
    segments = [{"id": 1, "category_id": 3, "iscrowd": 0}, {"id": 2, "category_id": 17}]
    content["annotations"] = [
        {"image_id": item["id"], "file_name": item["file_name"], "segments_info": copy.deepcopy(segments)}
        for item in content["images"]
    ]
    return content


PANOPTIC_MISTAKES = [
    ("file_name", "../a.png", "annotations[1].file_name is '../a.png'; expected a path inside the folder"),
    ("file_name", "gone.png", "annotations[1].file_name is 'gone.png'; expected a file in"),
    ("file_name", "a.png", "annotations[1].file_name is 'a.png'; expected another; 5 has it"),
    ("file_name", 3, "annotations[1].file_name is 3; expected a text"),
    ("image_id", 5, "annotations[1].image_id is 5; expected another; it has an annotation"),
    ("segments_info", ..., "annotations[1] has no 'segments_info'"),
    ("segments_info", {"id": 1}, "annotations[1].segments_info is {'id': 1}; expected a list"),
    ("segments_info", [7], "annotations[1].segments_info[0] is 7; expected an object with 'id'"),
    ("segments_info", [{"id": 1}], "annotations[1].segments_info[0] is {'id': 1}; expected an object"),
    ("segments_info", [{"id": 0, "category_id": 3}], "annotations[1].segments_info[0].id is 0; expected"),
    ("segments_info", [{"id": 2**24, "category_id": 3}], "segments_info[0].id is 16777216; expected an"),
    ("segments_info", [{"id": "1", "category_id": 3}], "segments_info[0].id is '1'"),
    (
        "segments_info",
        [{"id": 1, "category_id": 3}] * 2,
        "segments_info[1].id is 1; expected another; a segment",
    ),
    (
        "segments_info",
        [{"id": 1, "category_id": 4}],
        "annotations[1].segments_info[0].category_id is 4, which",
    ),
    ("segments_info", [{"id": 1, "category_id": 3, "iscrowd": "0"}], "segments_info[0].iscrowd is '0'"),
]


@pytest.mark.parametrize(("key", "value", "text"), PANOPTIC_MISTAKES)
def test_mistakes_in_panoptic_files(images, tmp_path, panoptic, key, value, text):
    if value is ...:
        del panoptic["annotations"][1][key]
    else:
        panoptic["annotations"][1][key] = value
    path = write(tmp_path, panoptic, "panoptic.json")
    with pytest.raises(DecodeError) as caught:
        dataset(images, path)
    assert text in str(caught.value)
    sound = dataset(images, path, mistakes="skip")
    label = sound[sound.ids.index("sub/c.png")].labels["semseg"]
    assert [label[0, 0], label[12, 0], label[19, 0]] == [0, 1, 255]


def test_panoptic_oddities_and_places(images, tmp_path, panoptic):
    del panoptic["annotations"][1]
    path = write(tmp_path, panoptic, "panoptic.json")
    found = dataset(images, path)
    assert "image 9 has no annotation. None of its pixels is annotated." in found.remarks()[0]
    assert (found[1].labels["semseg"] == 255).all()
    assert set(found.files()) >= {"panoptic/a.png", "panoptic/sub/c.png"}
    packed = tmp_path / "packed" / "panoptic.json.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(path.read_bytes()))
    shutil.copytree(tmp_path / "panoptic", packed.parent / "panoptic")
    assert dataset(images, packed).ids == found.ids
    assert set(dataset(images, packed, panoptic=Path(tmp_path, "panoptic")).files()) == set(found.files())


def test_masks_equal_pycocotools():
    rng = np.random.default_rng(0)
    texts, expected = [], []
    for _ in range(200):
        height, width = (int(side) for side in rng.integers(1, 40, 2))
        pixels = np.asfortranarray(rng.random((height, width)) < rng.random(), dtype=np.uint8)
        packed = rle.encode(pixels)["counts"].decode()
        segmentation = {"size": [height, width], "counts": packed}
        assert find_mistake(segmentation, (height, width), Limits()) is None
        np.testing.assert_array_equal(mask_of(segmentation, (height, width)), pixels.astype(bool))
        texts.append((packed, (height, width)))
        expected.append(pixels)
    assert find_sum_mistakes(texts) == []
    counts, first = unpack([text for text, _ in texts])
    for start, stop, pixels in zip(first, [*first[1:], counts.size], expected, strict=True):
        plain = {"size": list(pixels.shape), "counts": counts[start:stop].tolist()}
        np.testing.assert_array_equal(mask_of(plain, pixels.shape), pixels.astype(bool))
        again = rle.frPyObjects(plain, *pixels.shape)
        np.testing.assert_array_equal(rle.decode([again])[..., 0], pixels)


def test_sums_are_checked_across_batches(monkeypatch):
    monkeypatch.setattr("mtvision.data.coco.masks._BATCH", 3)
    good, short = ("hb0", (20, 30)), ("55", (20, 30))
    found = find_sum_mistakes([good, short, good, good, short, short])
    assert [position for position, _ in found] == [1, 4, 5]
    assert find_sum_mistakes([]) == []


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[5, 5, 5, 5, 5, 5]], "segmentation has only polygons without area"),
        ([[5, 5, 9, 5, 20, 5]], "segmentation has only polygons without area"),
        (code([H * W]), "segmentation.counts covers 0 pixels"),
        (code([3, 0, H * W - 3]), "segmentation.counts covers 0 pixels"),
    ],
    ids=["a point", "a line", "one run", "a run of none"],
)
def test_an_object_without_a_pixel_is_said(segmentation, said, images, tmp_path):
    data = dataset(images, write(tmp_path, changed("annotations.1.segmentation", segmentation)))
    assert any(f"annotations[1].{said}" in remark for remark in data.remarks())
    assert set(np.unique(data.read(1).labels["semseg"])) == {255}


def test_names_of_categories_are_compared_in_the_composed_form(images, tmp_path):
    content = valid()
    content["categories"] = [{"id": 17, "name": "caf\u00e9"}, {"id": 3, "name": "cafe\u0301"}]
    with pytest.raises(DecodeError, match=r"categories\[1\]\.name is .*another; categories\[0\] has it"):
        dataset(images, write(tmp_path, content))
