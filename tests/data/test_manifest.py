"""The fingerprint changes with the data and with nothing else."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from mtvision.core.registry import DATASETS
from mtvision.data.folder import FolderDataset
from mtvision.data.manifest import data_manifest, scored_data
from mtvision.protocols import SYNTHETIC, own_protocol

PROTOCOL = own_protocol("own", {"semseg": {"class_names": ["a", "b"]}})


def make(root, **options):
    return FolderDataset(root, labels={"semseg": "labels"}, protocol=PROTOCOL, **options)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for folder, channels in (("images", (3,)), ("labels", ())):
        (tmp_path / "a" / folder).mkdir(parents=True)
        for name in "xyz":
            array = rng.integers(0, 2, (8, 9, *channels)).astype(np.uint8)
            Image.fromarray(array).save(tmp_path / "a" / folder / f"{name}.png")
    return tmp_path / "a"


def test_content(root):
    manifest = data_manifest(make(root))
    assert manifest["images"] == 3
    assert manifest["files"] == 6
    assert manifest["bytes"] == sum(path.stat().st_size for path in root.rglob("*.png"))
    assert (manifest["protocol"], manifest["split"], manifest["tasks"]) == ("own", "train", ["semseg"])
    assert len(manifest["hash"]) == 64


def test_moving_changes_nothing_but_changing_does(root):
    first = data_manifest(make(root))
    deep = data_manifest(make(root), content=True)
    moved = root.parent / "b"
    shutil.copytree(root, moved)
    assert data_manifest(make(moved))["hash"] == first["hash"]
    assert data_manifest(make(moved, transforms="light", seed=3))["hash"] == first["hash"]
    content = bytearray((moved / "labels/x.png").read_bytes())
    content[-20] ^= 1  # same size
    (moved / "labels/x.png").write_bytes(bytes(content))
    assert data_manifest(make(moved))["hash"] == first["hash"]
    assert data_manifest(make(moved), content=True)["hash"] != deep["hash"]
    (moved / "labels/x.png").write_bytes(bytes(content) + b"\0")
    assert data_manifest(make(moved))["hash"] != first["hash"]
    ignoring = FolderDataset(root, labels={"semseg": {"folder": "labels", "ignore": [1]}}, protocol=PROTOCOL)
    assert data_manifest(ignoring)["hash"] != first["hash"]
    (root / "labels/x.png").unlink()
    dataset = make(root, partial=True)
    assert data_manifest(dataset)["hash"] != first["hash"]


def test_vanished_file(root):
    dataset = make(root)
    (root / "images/y.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"images/y.png"):
        data_manifest(dataset)


def test_synthetic_scenes_are_named_by_their_parameters():
    scenes = DATASETS.get("SyntheticScenes")
    hashes = {data_manifest(scenes(split=split, length=3))["hash"] for split in ("train", "val")}
    assert len(hashes) == 2
    assert data_manifest(scenes(split="val", length=3))["hash"] in hashes


def test_a_task_alone_is_scored_on_the_same_images_and_labels(root):
    both = own_protocol("own", {"semseg": {"class_names": ["a", "b"]}, "edge": {}})
    shutil.copytree(root / "labels", root / "edges")

    def scored(protocol):
        folders = {"semseg": "labels", "edge": "edges"}
        kept = {name: folders[name] for name in protocol.task_names}
        return scored_data(FolderDataset(root, labels=kept, protocol=protocol))

    whole = scored(both)
    parts = {name: scored(both.select([name])) for name in both.task_names}
    assert {part["fingerprint"] for part in parts.values()} == {whole["fingerprint"]}
    assert {name: part["labels"][name] for name, part in parts.items()} == whole["labels"]
    assert (whole["images"], whole["split"]) == (3, "train")
    with (root / "edges/x.png").open("ab") as file:
        file.write(b"\0")
    changed = scored(both)
    assert changed["labels"]["edge"] != whole["labels"]["edge"]
    assert changed["labels"]["semseg"] == whole["labels"]["semseg"]
    assert changed["fingerprint"] == whole["fingerprint"]
    for folder in ("images", "labels", "edges"):
        (root / folder / "x.png").unlink()
    assert scored(both)["fingerprint"] != whole["fingerprint"]


def test_a_task_alone_has_its_fingerprint_beside_a_task_whose_numbers_are_decoded(root):
    (root / "depth").mkdir()
    for path in (root / "labels").iterdir():
        size = Image.open(path).size
        Image.fromarray(np.full(size[::-1], 2000, np.uint16)).save(root / "depth" / path.name)
    both = own_protocol("own", {"depth": {}, "semseg": {"class_names": ["a", "b"]}})
    labels = {"depth": {"folder": "depth", "scale": 1000}, "semseg": "labels"}
    whole = scored_data(FolderDataset(root, labels=labels, protocol=both))
    for name in both.task_names:
        alone = scored_data(FolderDataset(root, labels=labels, protocol=both, tasks=[name]))
        assert alone["fingerprint"] == whole["fingerprint"]
        assert alone["labels"] == {name: whole["labels"][name]}


def test_the_length_of_a_synthetic_set_is_in_its_fingerprint():
    def scored(length, tasks=None):
        config = {"type": "SyntheticScenes", "length": length, "split": "test"}
        return scored_data(DATASETS.build(config, protocol=SYNTHETIC.select(tasks or SYNTHETIC.task_names)))

    assert scored(100)["fingerprint"] != scored(60)["fingerprint"]
    assert scored(60, ["depth"])["fingerprint"] == scored(60)["fingerprint"]
    assert scored(60, ["depth"])["labels"]["depth"] == scored(60)["labels"]["depth"]
