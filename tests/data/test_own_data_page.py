"""Runs the examples of `datasets/own_data.md` on miniature data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from mtvision.core.registry import DATASETS
from mtvision.protocols import own_protocol

PAGE = Path(__file__).resolve().parents[2] / "datasets" / "own_data.md"
H, W = 24, 32


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_examples(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for root, names in (("street", "ab"), ("harbour", "h")):
        for name in names:
            write(tmp_path / root / f"train/{name}.png", rng.integers(0, 256, (H, W, 3)).astype(np.uint8))
            ids = rng.choice([0, 1, 2, 11], (H, W)).astype(np.uint8)
            write(tmp_path / root / f"trainannot/{name}.png", ids)
            if root == "street":
                write(tmp_path / f"street/depth/{name}.png", rng.integers(0, 9000, (H, W)).astype(np.uint16))
    write(tmp_path / "coco/images/x.png", np.zeros((H, W, 3), np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "x.png", "height": H, "width": W}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 4, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 4, "segmentation": [[2, 2, 20, 2, 20, 15, 2, 15]]}
        ],
    }
    (tmp_path / "coco/instances.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(block, names)  # the page itself, not foreign input
    protocol = own_protocol(**names["protocol"])
    dataset = DATASETS.build(names["train_data"]["dataset"], protocol=protocol, seed=0)
    assert set(dataset[0].labels) == {"semseg", "edge"}
    both = own_protocol("both", {"semseg": {"class_names": ["road", "car", "tree"]}, "depth": {}})
    joint = DATASETS.build(names["joint_data"]["dataset"], protocol=both, seed=0)
    assert joint.ids == ["street/a", "street/b", "depths/a", "depths/b"]
    assert [set(joint[index].labels) for index in (0, 2)] == [{"semseg"}, {"depth"}]
