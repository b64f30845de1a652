"""Mutated COCO files: each is refused with its name, or gives the labels of a slow reference."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from mtvision.core.task import IGNORE
from mtvision.data.coco import CocoDataset
from mtvision.protocols import own_protocol

H, W = 20, 30
NAMES = ("car", "cat", "grass")
PROTOCOL = own_protocol("coco-like", {"semseg": {"class_names": NAMES}})
COUNT = 200


def mask(top, left, bottom, right):
    pixels = np.zeros((H, W), np.uint8, order="F")
    pixels[top:bottom, left:right] = 1
    return pixels


def runs(pixels):
    flat = np.concatenate(([0], pixels.ravel(order="F"), [2]))
    limits = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate(([0], limits)))
    return [int(count) for count in counts]


def valid_content():
    polygon = [[2, 2, 20, 2, 20, 15.5, 2, 15]]
    packed = rle.encode(mask(5, 5, 12, 12))
    code = {"size": [H, W], "counts": packed["counts"].decode()}
    plain = {"size": [H, W], "counts": runs(mask(0, 20, 20, 28))}
    parts = [[22.5, 1, 28, 1, 28, 9], [1, 16, 6, 16, 6, 19, 1, 19]]
    annotations = [
        {"image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}
        for image, category, segmentation, crowd in (
            (5, 3, polygon, 0),
            (5, 17, code, 0),
            (9, 90, plain, 1),
            (9, 3, parts, 0),
            (9, 17, code, 0),
        )
    ]
    for number, item in enumerate(annotations):
        item.update(id=number + 1, area=100.0, bbox=[0, 0, 30, 20])
    return {
        "images": [
            {"id": 5, "file_name": "a.png", "height": H, "width": W},
            {"id": 9, "file_name": "b.png", "height": H, "width": W},
            {"id": 11, "file_name": "c.png", "height": H, "width": W},
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 3, "name": "car"}, {"id": 90, "name": "grass"}],
        "annotations": annotations,
    }


def reference(content, name):
    """Class map of one image, painted pixel by pixel from a file without mistakes in it."""
    (record,) = [
        item for item in content["images"] if isinstance(item, dict) and item.get("file_name") == name
    ]
    classes = {item["id"]: NAMES.index(item["name"]) for item in content["categories"]}
    objects = []
    for item in content["annotations"]:
        if isinstance(item, dict) and item.get("image_id") == record["id"]:
            code = item["segmentation"]
            if isinstance(code, list):
                code = rle.merge(rle.frPyObjects(code, H, W))
            elif isinstance(code["counts"], list):
                code = rle.frPyObjects(code, H, W)
            objects.append((rle.decode([code])[..., 0], item["category_id"], item.get("iscrowd", 0)))
    label = np.full((H, W), IGNORE)
    for pixels, category, crowd in sorted(objects, key=lambda item: (not item[2], -int(item[0].sum()))):
        for row, column in np.argwhere(pixels):
            label[row, column] = IGNORE if crowd else classes[category]
    return label


HOSTILE = (
    *(None, True, False, 0, -1, 1, 2, 5, 17, 3.0, 2.5, 1e9, -1e300, 10**30, 2**31, 2**32 + 5),
    *(float("nan"), float("inf"), "", "5", "a.png", "../a.png", "/a.png", "\ud800", "\x00", "0" * 50),
    *([], {}, [[]], [[1, 2]], [1, 2, 3, 4, 5, 6], [[1, 2, 3, 4]], [[[1, 2], [3, 4], [5, 6]]]),
    {"size": [H, W], "counts": [1]},
    {"size": [W, H], "counts": [H * W]},
    {"size": [H, W], "counts": "PPPPPPPPPPP"},
    {"size": [H, W], "counts": [-5, H * W + 5]},
)


def places(value, path=()):
    """Paths of everything inside a JSON value."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def mutate(content, rng):
    """Change, remove, repeat or exchange one value of a JSON tree, in place."""
    path = rng.choice(list(places(content)))
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], rng.randrange(6)
    value = parent[key]
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif kind == 2 and isinstance(value, int | float):
        parent[key] = value + rng.choice([-100, -1, 0.5, 1, 7, 1000])
    elif kind == 3 and isinstance(value, str) and value:
        at = rng.randrange(len(value))
        parent[key] = value[:at] + rng.choice(["", "o", "0", "P", "é", " "]) + value[at + 1 :]
    elif kind == 4:
        other = rng.choice(list(places(content)))
        node = content
        for step in other:
            node = node[step]
        parent[key] = copy.deepcopy(node)
    else:
        parent[key] = copy.deepcopy(rng.choice(HOSTILE))


def mutate_text(text, rng):
    """Change, cut, repeat or remove bytes of a file."""
    content = bytearray(text)
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.randrange(1, 40))
    kind = rng.randrange(4)
    if kind == 0:
        content[start] = rng.randrange(256)
    elif kind == 1:
        del content[start:stop]
    elif kind == 2:
        content[start:start] = content[start:stop]
    else:
        del content[start:]
    return bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    images = tmp_path_factory.mktemp("coco") / "images"
    images.mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(images / f"{name}.png")
    return images.parent


def mutated_files(count):
    for seed in range(count):
        rng = random.Random(seed)
        content = valid_content()
        for _ in range(rng.randrange(1, 4)):
            mutate(content, rng)
        text = json.dumps(content).encode()
        yield seed, mutate_text(text, rng) if seed % 4 == 0 else text


def labels_of(path, policy):
    """{file name: class map} of a file, or the message that refuses it."""
    try:
        dataset = CocoDataset(
            path.parent / "images", path, protocol=PROTOCOL, other="ignore", mistakes=policy
        )
        return {name: dataset[index].labels["semseg"] for index, name in enumerate(dataset.ids)}
    except (ValueError, FileNotFoundError) as error:  # the size of an image is compared when it is read
        return str(error)


def outcome(path, policy):
    """`refused`, or the number of images that are left, all of them right."""
    labels = labels_of(path, policy)
    if isinstance(labels, str):
        assert path.name in labels
        return "refused"
    content = json.loads(path.read_bytes())
    for name, label in labels.items():
        np.testing.assert_array_equal(label, reference(content, name))
    return len(labels)


def test_the_file_without_mutations_is_accepted(folder):
    path = folder / "valid.json"
    path.write_text(json.dumps(valid_content()))
    assert outcome(path, "error") == 3


def test_mutated_files_are_refused_by_name_or_read_right(folder):
    path = folder / "mutated.json"
    found = {"error": [], "skip": []}
    for seed, text in mutated_files(COUNT):
        path.write_bytes(text)
        for policy, results in found.items():
            try:
                results.append(outcome(path, policy))
            except Exception as error:
                raise AssertionError(f"seed {seed}, {policy}: {text!r}") from error
    for strict, tolerant in zip(*found.values(), strict=True):
        assert strict == tolerant or strict == "refused"
    assert found["error"].count("refused") > COUNT // 2
    assert found["error"].count(3) > COUNT // 10
    assert sum(result in (1, 2) for result in found["skip"]) > COUNT // 10
