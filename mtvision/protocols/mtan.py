"""The small sets of the multi-task optimisation literature, as packaged with MTAN (CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtvision.core.task import Task
from mtvision.protocols.cityscapes import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE, CITYSCAPES_SPLITS
from mtvision.protocols.nyudv2 import NYUD_SPLITS
from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import depth, normals, semseg

NYUV2_13_CLASSES = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv",
    "wall", "window",
)  # fmt: skip

CITYSCAPES_7_CLASSES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""The seven non-void categories of Cityscapes. No released code names them; the order is unverified."""

MTAN_RULE = "mean of the last 10 epochs"

NASH_MTL_BASES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "nyuv2-mtan": {
        "semseg": {"miou": 0.3830, "pixel_accuracy": 0.6376},
        "depth": {"abs_err": 0.6754, "rel_err": 0.2780},
        "normals": {"mean": 25.01, "median": 19.21, "11.25": 0.3014, "22.5": 0.5720,
                    "30": 0.6915},
    },
    "cityscapes-mtan-7": {
        "semseg": {"miou": 0.7401, "pixel_accuracy": 0.9316},
        "depth": {"abs_err": 0.0125, "rel_err": 27.77},
    },
}  # fmt: skip
"""{protocol: {task: {score: value}}}: every single-task score in the code of Nash-MTL and FAMO, whose
delta averages over all of them."""


def inverse_depth() -> Task:
    """MTAN's Cityscapes depth: inverse depth of an undocumented scale, 0 = none, under the key `depth`.

    Zooming by s divides it by s, as FAMO's code does, although inverse depth should be multiplied; the
    data set's option `zoom_fix` multiplies.
    """
    return replace(depth(family="mtan"), unit="")


def _cityscapes(name: str, classes: Sequence[str], palette: Sequence[tuple[int, int, int]]) -> Protocol:
    bases = {"single-task SegNet (Nash-MTL)": {"semseg": 0.7401, "depth": 0.0125}}
    return Protocol(
        id=name,
        title=f"Cityscapes, {len(classes)} classes and inverse depth, MTAN data",
        family="mtan",
        tasks=(semseg(classes, palette=palette, family="mtan"), inverse_depth()),
        splits=CITYSCAPES_SPLITS,
        train_size=(128, 256),
        eval_size=(128, 256),
        loss_weights={"semseg": 1, "depth": 1},
        baselines=bases if name in NASH_MTL_BASES else {},
        checkpoint_rule=MTAN_RULE,
        source="MTAN (CVPR 2019, arXiv 1803.10704) data; Nash-MTL (ICML 2022, arXiv 2202.01017) baselines",
    )


NYUV2_MTAN = Protocol(
    id="nyuv2-mtan",
    title="NYUv2, 13 classes, 288x384, MTAN data",
    family="mtan",
    tasks=(semseg(NYUV2_13_CLASSES, family="mtan"), depth(family="mtan"), normals(family="mtan")),
    splits=NYUD_SPLITS,
    train_size=(288, 384),
    eval_size=(288, 384),
    loss_weights={"semseg": 1, "depth": 1, "normals": 1},
    baselines={"single-task SegNet (Nash-MTL)": {"semseg": 0.3830, "depth": 0.6754, "normals": 25.01}},
    checkpoint_rule=MTAN_RULE,
    source="MTAN (CVPR 2019, arXiv 1803.10704) data; Nash-MTL (ICML 2022, arXiv 2202.01017) baselines",
)

CITYSCAPES_MTAN_7 = _cityscapes("cityscapes-mtan-7", CITYSCAPES_7_CLASSES, ())
CITYSCAPES_MTAN_19 = _cityscapes("cityscapes-mtan-19", CITYSCAPES_CLASSES, CITYSCAPES_PALETTE)
