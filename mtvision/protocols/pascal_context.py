"""PASCAL-Context: 4998 training and 5105 test photographs, five tasks."""

from __future__ import annotations

from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import edge, human_parts, normals, saliency, semseg

PASCAL_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""The 21 classes of PASCAL VOC. Background is a class; 255 is not. Not the 59 classes of PASCAL-Context."""

PASCAL_SPLITS = {"train": 4998, "val": 5105}


def voc_palette(count: int = 21) -> tuple[tuple[int, int, int], ...]:
    """Colours of PASCAL VOC's index files: bit k of the id goes to bit 7 - k // 3 of channel k % 3.

    >>> voc_palette(3)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """
    colours = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(24):
            channels[bit % 3] |= (index >> bit & 1) << 7 - bit // 3
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)


# 101 thresholds: the odsF tool that the InvPT line of papers names.
PASCAL_INVPT = Protocol(
    id="pascal-invpt",
    title="PASCAL-Context, InvPT protocol",
    family="invpt",
    tasks=(
        semseg(PASCAL_CLASSES, palette=voc_palette()),
        human_parts(),
        saliency(),
        normals(),
        edge(positive_weight=0.95, max_distance=0.0075, thresholds=101),
    ),
    splits=PASCAL_SPLITS,
    train_size=(512, 512),
    eval_size=(512, 512),
    loss_weights={"semseg": 1, "human_parts": 2, "saliency": 5, "normals": 10, "edge": 50},
    baselines={
        # PRISM's README; its odsF comes from the MTDP evaluator, see `nyud-invpt`.
        "single-task ViT-B (PRISM, odsF by mtdp)": {
            "semseg": 0.8025,
            "human_parts": 0.7054,
            "saliency": 0.8454,
            "normals": 13.57,
            "edge": 0.7422,
        },
        "single-task ViT-L (PRISM, odsF by mtdp)": {
            "semseg": 0.8161,
            "human_parts": 0.7277,
            "saliency": 0.8380,
            "normals": 13.87,
            "edge": 0.7524,
        },
    },
    source="ASTMT (CVPR 2019, arXiv 1904.08918) data; InvPT (ECCV 2022, arXiv 2203.07997) sizes and losses",
)
"""Photographs of at most 500 pixels, padded to 512x512, native-resolution scoring, last checkpoint."""

PASCAL_SURVEY = Protocol(
    id="pascal-survey",
    title="PASCAL-Context, survey protocol",
    family="survey",
    tasks=(
        semseg(PASCAL_CLASSES, palette=voc_palette(), family="survey"),
        human_parts(),
        saliency(family="survey"),
        normals(family="survey"),
        edge(positive_weight=0.95, max_distance=0.0075, thresholds=99, family="survey"),
    ),
    splits=PASCAL_SPLITS,
    train_size=(512, 512),
    eval_size=(512, 512),
    loss_weights={"semseg": 1, "human_parts": 2, "saliency": 5, "normals": 10, "edge": 50},
    baselines={
        "single-task ResNet-101 (ASTMT README)": {
            "semseg": 0.6830,
            "human_parts": 0.6070,
            "saliency": 0.6540,
            "normals": 14.61,
            "edge": 0.7270,
        },
        "single-task HRNet-18 (survey README)": {
            "semseg": 0.5940,
            "human_parts": 0.6030,
            "saliency": 0.6700,
            "normals": 14.6,
            "edge": 0.6920,
        },
    },
    source="released code of Vandenhende et al., a survey (TPAMI 2021, arXiv 2004.13379)",
)
"""Everything resized to 512x512; saliency is scored as mIoU, not as maxF."""
