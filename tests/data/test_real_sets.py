"""Real data of several sets through `FolderDataset`, each with a config of at most 15 lines."""

from __future__ import annotations

import discs  # noqa: F401  its network
import numpy as np
import pytest
import torch
from PIL import Image

from mtvision.data.check import collect, judge
from mtvision.engine.building import training_module
from mtvision.metrics.boundary.protocols import BSDS
from mtvision.metrics.boundary.readers import read_truth
from mtvision.recipe.building import network_of
from mtvision.recipe.check import load_checked
from mtvision.recipe.data import build_dataset, train_loader

SECTIONS = ("train_data", "val_data")
NETWORK = """
model = dict(
    backbone=dict(type="DropoutNet"),
    decoder=dict(type="ParallelDecoder", width=8),
    head=dict(type="ConvHead"),
)
optimizer = dict(type="AdamW", lr=1e-3)
training = dict(iterations=1)
"""
CAMVID = """
NAMES = "sky building pole road pavement tree sign fence car pedestrian cyclist".split()
protocol = dict(id="camvid", tasks=dict(semseg=dict(class_names=NAMES), edge=dict()))
EDGES = dict(derive="edges_from_classes", source="semseg")
LABELS = dict(semseg=dict(folder="{split}annot", ignore=[11]), edge=EDGES)
SCENES = dict(type="FolderDataset", root="ROOT/camvid", images="{split}", labels=LABELS)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**SCENES, split="train", transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**SCENES, split="val"), batch_size=2)
"""
BSDS_SOD = """
protocol = dict(id="bsds", tasks=dict(saliency=dict(), edge=dict()))
LABELS = dict(saliency=dict(folder="saliency", encoding="mask"), edge="BSDS_EDGES")
PHOTOGRAPHS = dict(type="FolderDataset", root="ROOT/bsds_sod", images="images/{split}", labels=LABELS)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**PHOTOGRAPHS, split="train", transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**PHOTOGRAPHS, split="val"), batch_size=1)
"""
MOSD = """
protocol = dict(id="mosd", tasks=dict(semseg=dict(class_names=["table", "object"]), depth=dict()))
PARTS = {part: 0 if part < 10 else 1 for part in range(1, 180)}
LABELS = dict(semseg=dict(folder="label", ids=PARTS, ignore=[0]), depth=dict(folder="depth", scale=1000))
FRAMES = dict(type="FolderDataset", root="ROOT/mosd", images="rgb", labels=LABELS)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**FRAMES, ids=["learn*"], transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**FRAMES, ids=["test*"], split="val"), batch_size=2)
"""
VOC = """
NAMES = [f"class {index}" for index in range(21)]
protocol = dict(id="voc", tasks=dict(semseg=dict(class_names=NAMES)))
LABELS = dict(semseg=dict(folder=".", suffix=".png"))
FILES = dict(root="ROOT/voc_samples", images=".", image_suffix=".jpg", labels=LABELS)
PHOTOGRAPHS = dict(type="FolderDataset", **FILES)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**PHOTOGRAPHS, ids=["2007*"], transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**PHOTOGRAPHS, ids=["2008*", "2010*"], split="val"), batch_size=1)
"""
PERSON_PART = """
NAMES = "background head torso upper_arm lower_arm upper_leg lower_leg".split()
protocol = dict(id="parts", tasks=dict(human_parts=dict(class_names=NAMES)))
LABELS = dict(human_parts=dict(folder=".", suffix=".png"))
FILES = dict(root="ROOT/person_part_samples", images=".", image_suffix=".jpg", labels=LABELS)
PEOPLE = dict(type="FolderDataset", **FILES)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**PEOPLE, ids=["2008*"], transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**PEOPLE, ids=["2009*"], split="val"), batch_size=1)
"""
NYUD = """
NAMES = [f"class {index}" for index in range(40)]
protocol = dict(id="rooms", tasks=dict(semseg=dict(class_names=NAMES), depth=dict(), normals=dict()))
NORMALS = dict(folder=".", prefix="norm_gt_", axes=["x", "-z", "y"], invalid=[(127, 127, 127)])
DEPTH = dict(folder=".", prefix="depth_gt_", scale=5000)
LABELS = dict(semseg=dict(folder=".", prefix="segm_gt_"), depth=DEPTH, normals=NORMALS)
ROOMS = dict(type="FolderDataset", root="ROOT/nyud_samples", images=".", labels=LABELS, partial=True)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**ROOMS, ids=["000433", "000464"], transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**ROOMS, ids=["000433"], split="val"), batch_size=1)
"""
NYUD_MASKS = """
NAMES = [f"class {index}" for index in range(40)]
protocol = dict(id="rooms", tasks=dict(semseg=dict(class_names=NAMES)))
LABELS = dict(semseg=dict(folder=".", suffix="_mask.png"))
ROOMS = dict(type="FolderDataset", root="ROOT/nyud_samples", images=".", labels=LABELS)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**ROOMS, ids=["000834", "000972"], transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**ROOMS, ids=["001096", "001299", "001391"], split="val"), batch_size=1)
"""
SALIENCY = """
protocol = dict(id="salient", tasks=dict(saliency=dict()))
LABELS = dict(saliency=dict(folder="masks", encoding="mask"))
MAPS = dict(type="FolderDataset", root="ROOT/saliency_samples", images="preds", labels=LABELS)
TRAIN = dict(preset="light", size=(64, 96))
train_data = dict(dataset=dict(**MAPS, ids=["0001", "19"], transforms=TRAIN), batch_size=2)
val_data = dict(dataset=dict(**MAPS, ids=["aerial*"], split="val"), batch_size=1)
"""
SETS = {
    "CamVid": (CAMVID, (72, 36)),
    "BSDS with saliency": (BSDS_SOD, (200, 100)),
    "mOSD": (MOSD, (45, 62)),
    "VOC": (VOC, (2, 2)),
    "person parts": (PERSON_PART, (3, 1)),
    "NYUD": (NYUD, (2, 1)),
    "NYUD with masks": (NYUD_MASKS, (2, 3)),
    "saliency": (SALIENCY, (2, 1)),
}
"""Name: (config, images of the two splits). The saliency samples have no photographs; maps stand for them."""


def write_edges(real_data, folder):
    """The share of annotators that drew a pixel, of the `.mat` files of BSDS: what the page does."""
    for path in (real_data / "bsds_sod/groundTruth").rglob("*.mat"):
        share = np.mean(read_truth(path, BSDS), axis=0)
        Image.fromarray(np.round(share * 255).astype(np.uint8)).save(folder / f"{path.stem}.png")


SLOW = dict.fromkeys(("BSDS with saliency", "mOSD"), pytest.mark.slow)  # 300 MATLAB files, 321 large maps


@pytest.fixture(params=[pytest.param(name, marks=SLOW.get(name, ())) for name in SETS])
def case(request, real_data, tmp_path):
    """Name of the set, and its config with a network."""
    text = SETS[request.param][0]
    assert len(text.strip().splitlines()) <= 15
    if "BSDS_EDGES" in text:
        write_edges(real_data, tmp_path)
    text = text.replace("ROOT", str(real_data)).replace("BSDS_EDGES", str(tmp_path))
    (tmp_path / "config.py").write_text(text + NETWORK)
    return request.param, *load_checked(tmp_path / "config.py")


def chosen(dataset, most=100):
    """All images, or evenly spread ones of a larger set."""
    return [index * len(dataset) // min(most, len(dataset)) for index in range(min(most, len(dataset)))]


def found_in(config, settings):
    """{(level, where): texts} of the check of both splits, their sizes, and images read."""
    findings: dict[tuple[str, str], list[str]] = {}
    sizes = []
    for section in SECTIONS:
        dataset = build_dataset(section, config[section], settings.protocol, 0)
        statistics = collect(dataset, chosen(dataset))
        assert statistics.failures == {}
        assert statistics.read == min(100, len(dataset))
        sizes.append(len(dataset))
        for item in judge(dataset, statistics, complete=len(dataset) <= 100):
            findings.setdefault((item.level, item.where), []).append(item.text)
    return findings, tuple(sizes)


def test_a_short_config_reads_the_real_set_and_a_batch_trains(case):
    name, config, settings = case
    findings, sizes = found_in(config, settings)
    assert sizes == SETS[name][1]
    assert {level for level, _ in findings} <= {"warning", "note"}
    torch.manual_seed(0)
    module = training_module(config, settings, network_of(config, settings.protocol))
    dataset = build_dataset("train_data", config["train_data"], settings.protocol, 0)
    batch = next(iter(train_loader(dataset, {**config["train_data"], "num_workers": 0}, 0)))
    assert tuple(batch.image.shape) == (2, 3, 64, 96)
    losses = module(batch).losses
    assert set(losses) == set(settings.protocol.task_names)
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())
