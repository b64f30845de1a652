"""Cityscapes, 19 classes and disparity: 2975 training and 500 validation street scenes."""

from __future__ import annotations

from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import disparity, instance, semseg

CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip

CITYSCAPES_PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
    (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
    (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip

CITYSCAPES_SPLITS = {"train": 2975, "val": 500}

CITYSCAPES_MTMAMBA = Protocol(
    id="cityscapes-mtmamba",
    title="Cityscapes, MTMamba protocol",
    family="invpt",
    tasks=(semseg(CITYSCAPES_CLASSES, palette=CITYSCAPES_PALETTE), disparity(max_disparity=80.0)),
    splits=CITYSCAPES_SPLITS,
    train_size=(512, 1024),
    eval_size=(512, 1024),
    loss_weights={"semseg": 1, "depth": 1},
    checkpoint_rule="last",
    source="MTMamba (ECCV 2024, arXiv 2407.02228), released code",
)
"""Images 512x1024 against labels 1024x2048, no augmentation; disparity in full-resolution pixels.

The released code keeps the checkpoint that is best on the validation images; here the last one is scored."""

CITYSCAPES3D_TASKPROMPTER = Protocol(
    id="cityscapes3d-taskprompter",
    title="Cityscapes-3D, TaskPrompter protocol (two-dimensional tasks)",
    family="invpt",
    tasks=(semseg(CITYSCAPES_CLASSES, palette=CITYSCAPES_PALETTE), disparity(max_disparity=80.0)),
    splits={"val": 500},
    train_size=(1024, 2048),
    eval_size=(1024, 2048),
    loss_weights={"semseg": 100, "depth": 1},
    source="TaskPrompter (ICLR 2023), released code",
)
"""Images 1024x2048 against labels of 512x1024 whose disparities are not rescaled; no augmentation.

Three-dimensional boxes are out of scope. The training set is the 2975 images less those without a box of a
vehicle class (`Cityscapes(with_vehicles=True)`), a number that needs the box files, so it is not checked."""

CITYSCAPES_THINGS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
"""The classes with instances, in the order of the 19 classes."""

CITYSCAPES_KENDALL = Protocol(
    id="cityscapes-kendall",
    title="Cityscapes: classes, instances and disparity (tasks of Kendall et al.)",
    family="own",
    tasks=(
        semseg(CITYSCAPES_CLASSES, palette=CITYSCAPES_PALETTE),
        instance(
            CITYSCAPES_THINGS,
            palette=[CITYSCAPES_PALETTE[CITYSCAPES_CLASSES.index(name)] for name in CITYSCAPES_THINGS],
            minimum_area=100,
        ),
        disparity(max_disparity=None),
    ),
    splits=CITYSCAPES_SPLITS,
    train_size=(512, 1024),
    eval_size=(1024, 2048),
    loss_weights={"semseg": 1, "instance": 1, "depth": 1},
    source="tasks of Kendall, Gal, Cipolla (CVPR 2018, arXiv 1705.07115); scores: docs/metrics.md",
)
"""Full resolution; disparity in pixels; unknown ones are not learnt; instances under 100 px are ignored.

The paper tunes on half of the validation images and scores the other half; here all 500 are scored. Its
instance score (AP over IoU .5 .. .95) is computed by COCO's procedure, not by the Cityscapes server's."""
