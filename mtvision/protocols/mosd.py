"""mOSD: 107 Kinect frames of objects on a table, with six tasks."""

from __future__ import annotations

from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import depth, edge, instance, normals, saliency, semseg

MOSD_CLASSES = ("table", "object")
MOSD_SPLITS = {"train": 45, "val": 62}

MOSD = Protocol(
    id="mosd",
    title="mOSD (Kinect frames of objects on a table, 480x640)",
    family="own",
    tasks=(
        semseg(MOSD_CLASSES),
        depth(),
        normals(),
        edge(max_distance=0.0075, thresholds=99),
        saliency(),
        instance(("object",), minimum_area=64),
    ),
    splits=MOSD_SPLITS,
    train_size=(192, 256),
    loss_weights={"semseg": 1, "depth": 1, "normals": 10, "edge": 50, "saliency": 5, "instance": 1},
    source="Object Segmentation Database (Richtsfeld et al., IROS 2012) as modified by Alexandrov, "
    "PointCloudLibrary/data segmentation/mOSD",
)
"""`learn*` trains and `test*` is scored; three of 65 test clouds are not organised and left out.

Only pixels with depth have labels. True objects of fewer than 64 pixels count neither as found nor as missed.
"""
