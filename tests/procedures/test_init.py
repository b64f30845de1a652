"""`mtvision init`: from files in any layout to a config that trains."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from mtvision.cli.main import call
from mtvision.procedures.own_data.groups import affixes, find_groups
from mtvision.procedures.own_data.guess import guess
from mtvision.procedures.own_data.init import init
from mtvision.recipe.check import TO_TRAIN, load_checked
from mtvision.recipe.data import build_dataset

MOST_LINES = 30


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


def photograph(seed, size=(40, 60)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def ids(seed, count=4, size=(40, 60)):
    return (np.indices(size).sum(0) // 7 + seed).astype(np.uint8) % count


def datasets(config):
    """The checked config's data sets by split."""
    checked, settings = load_checked(config, needs=TO_TRAIN)
    return {
        split: build_dataset(f"{split}_data", checked[f"{split}_data"], settings.protocol, 0)
        for split in ("train", "val")
    }


def written(data, out, **options):
    """The config that was written, with its text."""
    found = init(data, out, **options)
    text = found.config.read_text()
    assert len(text.strip().splitlines()) <= MOST_LINES
    assert found.sheet.is_file()
    return found, text


def test_folders_of_splits(tmp_path):
    root = tmp_path / "street"
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            write(root / split / f"{index}.png", photograph(index))
            write(root / f"{split}annot" / f"{index}.png", ids(index))
            write(root / f"{split}_depth" / f"{index}.png", np.full((40, 60), 2500, np.uint16))
    found, text = written(root, tmp_path)
    assert 'semseg=dict(folder="{split}annot")' in text
    assert 'depth=dict(folder="{split}_depth", scale=1000)' in text
    assert "range(4)" in text
    assert "batch_size=4" in text  # no more than there are
    parts = datasets(found.config)
    assert {split: len(part) for split, part in parts.items()} == {"train": 4, "val": 2}
    assert float(parts["val"][0].labels["depth"].mean()) == 2.5
    report = found.report.read_text()
    assert "share of each id: 0:" in report
    assert "it makes the median 2.50 m" in report


def test_names_tell_splits_and_prefixes(tmp_path):
    root = tmp_path / "table"
    for name in ("learn1", "learn2", "learn3", "test1"):
        write(root / "rgb" / f"{name}.png", photograph(1))
        write(root / "masks" / f"gt_{name}.png", 255 * ids(1, 2))
    found, text = written(root, tmp_path)
    assert 'ids=["learn*"]' in text
    assert 'prefix="gt_"' in text
    parts = datasets(found.config)
    assert [len(part) for part in parts.values()] == [3, 1]
    assert set(parts["train"].tasks) == {"saliency"}


def test_one_folder_and_no_splits(tmp_path):
    root = tmp_path / "voc"
    for index in range(6):
        Image.fromarray(photograph(index)).save((root.mkdir(exist_ok=True) or root) / f"2007_{index:03d}.jpg")
        write(root / f"2007_{index:03d}.png", ids(index))
    found, text = written(root, tmp_path)
    assert 'image_suffix=".jpg"' in text
    assert 'suffix=".png"' in text
    assert [path.name for path in found.further] == ["voc_train.txt", "voc_val.txt"]
    parts = datasets(found.config)
    assert [len(part) for part in parts.values()] == [5, 1]
    assert not set(parts["train"].ids) & set(parts["val"].ids)


def test_numbers_with_gaps_and_pixels_without_depth(tmp_path):
    root = tmp_path / "parts"
    for index in range(5):
        labels = np.array([0, 1, 20, 30], np.uint8)[ids(0)]
        write(root / "rgb" / f"{index}.png", photograph(index))
        write(root / "label" / f"{index}.png", labels)
        write(root / "depth" / f"{index}.png", np.where(labels > 0, 900, 0).astype(np.uint16))
    found, text = written(root, tmp_path)
    assert "IDS = [1, 20, 30]" in text
    assert "ignore=[0]" in text
    labels = datasets(found.config)["train"][0].labels["semseg"]
    assert set(np.unique(labels).tolist()) == {0, 1, 2, 255}


def test_classes_are_named_by_a_list_beside_them(tmp_path):
    root = tmp_path / "named"
    write(root / "images/a.png", photograph(0))
    write(root / "labels/a.png", ids(0, 3))
    (root / "classes.txt").write_text("sky\nroad\ntree\n")
    _, text = written(root, tmp_path)
    assert 'class_names=["sky", "road", "tree"]' in text


def test_what_holds_no_labels_is_said(tmp_path):
    write(tmp_path / "only/images/a.png", photograph(0))
    with pytest.raises(ValueError, match="there are no labels for them"):
        init(tmp_path / "only", tmp_path)
    write(tmp_path / "maps/labels/a.png", ids(0))
    with pytest.raises(ValueError, match="no folder of colour pictures"):
        init(tmp_path / "maps", tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder or file"):
        init(tmp_path / "gone", tmp_path)


def coco(folder, names):
    """A COCO file of two categories beside a folder of pictures."""
    images = []
    for number, name in enumerate(names):
        write(folder / "pictures" / name, photograph(number))
        images.append({"id": number, "file_name": name, "height": 40, "width": 60})
    square = [[5, 5, 25, 5, 25, 25, 5, 25]]
    annotations = [
        {"id": item["id"], "image_id": item["id"], "category_id": 1 + item["id"] % 2, "segmentation": square,
         "area": 400, "bbox": [5, 5, 20, 20], "iscrowd": 0}
        for item in images
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]
    path = folder / "objects.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_a_coco_file(tmp_path, capsys):
    path = coco(tmp_path / "data", [f"{index}.png" for index in range(6)])
    assert call("init", [str(path), "--out", str(tmp_path)]) == 0
    assert "next: mtvision train" in capsys.readouterr().out
    parts = datasets(tmp_path / "objects.py")
    assert [len(part) for part in parts.values()] == [5, 1]
    assert set(parts["val"][0].labels) == {"semseg", "saliency", "edge"}
    assert call("init", [str(path), "--out", str(tmp_path)]) == 2
    assert "exist already" in capsys.readouterr().err
    mine = tmp_path / "new" / "objects_train.json"  # a file of one's own that the command would write
    mine.parent.mkdir()
    mine.write_text("mine")
    assert call("init", [str(path), "--out", str(mine.parent)]) == 2
    assert f"{mine} exist already" in capsys.readouterr().err
    assert [item.name for item in mine.parent.iterdir()] == [mine.name]
    assert mine.read_text() == "mine"


def test_affixes_of_names():
    assert affixes(["a_seg", "b_seg"], {"a", "b"}) == ("", "_seg")
    assert affixes(["x", "y"], {"a"}) is None


@pytest.mark.slow
def test_real_sets(real_data):
    found = {}
    for name in ("camvid", "mosd", "voc_samples"):
        root = real_data / name
        result = guess(root, find_groups(root)[0])
        found[name] = ({label.task for label in result.labels}, set(result.splits))
    assert found["camvid"] == ({"semseg"}, {"train", "val"})
    assert found["mosd"] == ({"semseg", "depth"}, {"train", "val"})
    assert found["voc_samples"] == ({"semseg"}, {"train", "val"})
