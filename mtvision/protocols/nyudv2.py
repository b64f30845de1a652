"""NYUD-v2: 795 training and 654 test frames, 40 classes, depth, normals and edges."""

from __future__ import annotations

from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import depth, edge, normals, semseg

NYUD_CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box",
    "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag",
    "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
"""The 40 NYU classes in label order ("refridgerator" is the data set's spelling). Unlabelled is no class."""

NYUD_SPLITS = {"train": 795, "val": 654}

# max_distance 0.011 and 101 thresholds: the odsF tool that the InvPT line of papers names.
NYUD_INVPT = Protocol(
    id="nyud-invpt",
    title="NYUD-v2, InvPT protocol",
    family="invpt",
    tasks=(
        semseg(NYUD_CLASSES),
        depth(),
        normals(),
        edge(positive_weight=0.95, max_distance=0.011, thresholds=101),
    ),
    splits=NYUD_SPLITS,
    train_size=(448, 576),
    eval_size=(448, 576),
    loss_weights={"semseg": 1, "depth": 1, "normals": 10, "edge": 50},
    baselines={
        # PRISM's README. Its odsF comes from the evaluator of the MTDP code base, which is not the one of
        # InvPT: a gain that includes the edge task against this baseline mixes two evaluators.
        "single-task ViT-B (PRISM, odsF by mtdp)": {
            "semseg": 0.5115,
            "depth": 0.5792,
            "normals": 19.77,
            "edge": 0.7735,
        },
    },
    source="data of ATRC (ICCV 2021, arXiv 2104.13874), rules of InvPT (ECCV 2022, arXiv 2203.07997)",
)
"""425x560 frames, padded to 448x576, native-resolution scoring, last checkpoint."""

NYUD_SURVEY = Protocol(
    id="nyud-survey",
    title="NYUD-v2, survey protocol",
    family="survey",
    tasks=(
        semseg(NYUD_CLASSES, family="survey"),
        depth(family="survey"),
        normals(family="survey"),
        edge(positive_weight=0.95, max_distance=0.011, thresholds=99, family="survey"),
    ),
    splits=NYUD_SPLITS,
    train_size=(480, 640),
    eval_size=(480, 640),
    loss_weights={"semseg": 1, "depth": 1, "normals": 10, "edge": 50},
    baselines={
        # README of the survey's code (Vandenhende et al., TPAMI 2021), its older table.
        "single-task HRNet-18 (survey README)": {"semseg": 0.3450, "depth": 0.610},
        "single-task ResNet-50 (survey README)": {"semseg": 0.4010, "depth": 0.571},
    },
    source="released code of Vandenhende et al., a survey (TPAMI 2021, arXiv 2004.13379)",
)
"""480x640 frames. Papers score semseg and depth; normals and edge are helper tasks there."""
