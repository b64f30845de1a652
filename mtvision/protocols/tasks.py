"""The tasks of the field, as each protocol family defines them.

Families (`invpt`, `survey`, `mtan`) differ in loss and metric details that change published numbers; they are
options here, never code elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from mtvision.core.naming import look_up
from mtvision.core.registry import TASKS
from mtvision.core.task import EXTRA_CHANNELS, Task

Family = Literal["invpt", "survey", "mtan"]

HUMAN_PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")


@TASKS.register_module()
def values(*, channels: int = 1, unit: str = "") -> Task:
    """Real values of any number of channels, which flips and zooms leave as they are (albedo, optical flow).

    Args:
        channels: of logits and label.
        unit: of the values.
    """
    return Task(
        name="values",
        out_channels=channels,
        label="values",
        label_channels=channels,
        activation="identity",
        loss={"type": "L1Loss"},
        metrics=({"type": "values"},),
        headline="rmse",
        higher_is_better=False,
        unit=unit,
    )


@TASKS.register_module()
def classes(class_names: Sequence[str], *, palette: Sequence[tuple[int, int, int]] = ()) -> Task:
    """A class per pixel, scored as semantic segmentation: materials, room layout, land cover."""
    return replace(semseg(class_names, palette=palette), name="classes")


@TASKS.register_module()
def semseg(
    class_names: Sequence[str], *, palette: Sequence[tuple[int, int, int]] = (), family: Family = "invpt"
) -> Task:
    """Semantic segmentation; in `mtan` a class that never occurs scores NaN, elsewhere 0."""
    return Task(
        name="semseg",
        out_channels=len(class_names),
        label="classes",
        activation="argmax",
        loss={"type": "CrossEntropyLoss"},
        metrics=(
            {
                "type": "iou",
                "num_classes": len(class_names),
                "absent": "nan" if family == "mtan" else "zero",
            },
        ),
        headline="miou",
        higher_is_better=True,
        class_names=tuple(class_names),
        palette=tuple(palette),
        colours="palette",
    )


@TASKS.register_module()
def human_parts(class_names: Sequence[str] = HUMAN_PARTS) -> Task:
    """Human parts with background; loaders label images without any part 255 throughout."""
    return replace(semseg(class_names), name="human_parts")


@TASKS.register_module()
def depth(*, max_depth: float | None = None, family: Family = "invpt") -> Task:
    """Metric depth in metres; pixels at or beyond `max_depth` are left out of the score."""
    activation: dict[str, Any] = {"activation": "identity" if family == "mtan" else "positive"}
    return Task(
        name="depth",
        out_channels=1,
        label="values",
        geometry="depth",
        loss={"type": "L1Loss"},
        metrics=({"type": "depth", "max_depth": max_depth},),
        headline="abs_err" if family == "mtan" else "rmse",
        higher_is_better=False,
        colours="depth",
        unit="m",
        **activation,
    )


@TASKS.register_module()
def disparity(*, max_disparity: float | None = 80.0) -> Task:
    """Disparity in full-resolution pixels, under the key `depth` as in the papers."""
    return replace(depth(max_depth=max_disparity), geometry="disparity", unit="px")


@TASKS.register_module()
def normals(*, family: Family = "invpt") -> Task:
    """Surface normals, unit vectors (x, y, z) whose x changes sign under a horizontal flip."""
    losses = {
        "invpt": {"type": "NormalsL1Loss", "channels": "sum"},
        "survey": {"type": "NormalsL1Loss", "channels": "mean"},
        "mtan": {"type": "NormalsCosineLoss"},
    }
    return Task(
        name="normals",
        out_channels=3,
        label="values",
        label_channels=3,
        geometry="direction",
        activation="unit",
        loss=look_up("protocol family", family, losses),
        metrics=({"type": "normals"},),
        headline="mean",
        higher_is_better=False,
        colours="normals",
    )


@TASKS.register_module()
def edge(
    *,
    positive_weight: float = 0.95,
    max_distance: float = 0.0075,
    thresholds: int = 99,
    family: Family = "invpt",
) -> Task:
    """Boundaries as one logit; odsF matches within `max_distance` times the image diagonal."""
    survey = {"average": "all", "threshold": 0.5} if family == "survey" else {"average": "valid"}
    return Task(
        name="edge",
        out_channels=1,
        label="values",
        activation="sigmoid",
        loss={"type": "EdgeLoss", "positive_weight": positive_weight, **survey},
        metrics=({"type": "edge", "max_distance": max_distance, "thresholds": thresholds},),
        headline="odsF",
        higher_is_better=True,
        colours="gray",
    )


@TASKS.register_module()
def saliency(*, family: Family = "invpt") -> Task:
    """Saliency: two-way softmax and maxF in `invpt`, one logit and mIoU in `survey`."""
    survey = family == "survey"
    return Task(
        name="saliency",
        out_channels=1 if survey else 2,
        label="classes",
        activation="sigmoid" if survey else "foreground",
        loss={"type": "BalancedBinaryLoss"} if survey else {"type": "BalancedCrossEntropyLoss"},
        metrics=({"type": "saliency"},),
        headline="survey_miou" if survey else "maxF",
        higher_is_better=True,
        class_names=("background", "salient"),
        colours="gray",
    )


@TASKS.register_module()
def instance(
    class_names: Sequence[str],
    *,
    palette: Sequence[tuple[int, int, int]] = (),
    minimum_area: int = 1,
    heat_weight: float = 200.0,
    offset_weight: float = 0.01,
) -> Task:
    """Instances of thing classes from centres and offsets (Kendall et al., CVPR 2018; Panoptic-DeepLab).

    Logits: background, one channel per class, the centre map and two offsets. True instances of fewer than
    `minimum_area` pixels count neither as found nor as missed. For the weights see `InstanceLoss`.
    """
    return Task(
        name="instance",
        out_channels=len(class_names) + EXTRA_CHANNELS,
        label="instances",
        activation="instances",
        loss={"type": "InstanceLoss", "heat_weight": heat_weight, "offset_weight": offset_weight},
        metrics=({"type": "instances", "num_classes": len(class_names), "minimum_area": minimum_area},),
        headline="instance_AP",
        higher_is_better=True,
        class_names=tuple(class_names),
        palette=tuple(palette),
        colours="instances",
    )
