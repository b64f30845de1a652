"""Intersection over union of class maps, pooled over the split (protocol families A, B and C)."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtvision.core.registry import METRICS
from mtvision.core.task import IGNORE
from mtvision.core.values import Positive
from mtvision.metrics.sums import Metric, Ranges, Sums, check_shapes


@METRICS.register_module("iou")
@dataclass(frozen=True, kw_only=True)
class IoU(Metric):
    """Mean IoU and pixel accuracy from counts summed over all images, never per image.

    With the counts of pixels whose label is not 255, IoU_c = TP / (TP + FP + FN), and

        miou = mean of IoU_c over the classes        pixel_accuracy = sum TP / number of labelled pixels

    Human parts use the same metric; their loaders label images without any part 255 throughout, so that false
    positives there cost nothing (InvPT `eval_human_parts.py`).

    Args:
        num_classes: C; label and predicted ids lie in 0..C-1, 255 in a label means none.
        absent: what a class contributes that occurs neither in labels nor in predictions. `zero`: an IoU of 0
            that counts in the mean (InvPT, TaskPrompter, MTMamba, MTI-Net). `nan`: nothing (LibMTL, NashMTL).
        per_class: also return `iou_<class id>`.
    """

    on_device: ClassVar[bool] = True
    ranges: ClassVar[Ranges] = {"miou": (0.0, 1.0), "pixel_accuracy": (0.0, 1.0), "iou_*": (0.0, 1.0)}

    num_classes: Positive
    absent: Literal["zero", "nan"] = "zero"
    per_class: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= IGNORE:
            raise ValueError(f"iou: num_classes must lie in 1..{IGNORE}, got {self.num_classes}.")
        if self.absent not in ("zero", "nan"):
            raise ValueError(f"iou: absent must be 'zero' or 'nan', got {self.absent!r}.")

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Counts of one image.

        Args:
            prediction: class ids, integer (H, W).
            label: class ids, integer (H, W), 255 = no label.

        Returns:
            `correct`, `predicted`, `labelled`: int64 (C,), pixels of each class that are right, predicted and
            true, all of them over labelled pixels.

        Raises:
            ValueError: the shapes differ, a map is not of integers, or an id is out of range.
        """
        check_shapes("iou", prediction, label)
        if prediction.is_floating_point() or label.is_floating_point():
            raise ValueError(
                f"iou: prediction and label must hold integer class ids, got {prediction.dtype} and "
                f"{label.dtype}; take the argmax of logits first (mtvision.core.prediction.to_prediction)."
            )
        valid = label != IGNORE
        guess, truth = prediction[valid].long(), label[valid].long()
        self._check_range("predicted", guess)
        self._check_range("label", truth)
        return {
            "correct": self._count(truth[guess == truth]),
            "predicted": self._count(guess),
            "labelled": self._count(truth),
        }

    def class_iou(self, sums: Sums) -> Tensor:
        """IoU of every class, float64 (C,); NaN for classes in neither labels nor predictions."""
        union = sums["predicted"] + sums["labelled"] - sums["correct"]
        return torch.where(union > 0, sums["correct"].double() / union.double(), nan)

    def score(self, sums: Sums) -> dict[str, float]:
        """`miou`, `pixel_accuracy` (and `iou_<id>`) as fractions; all NaN if no pixel was labelled."""
        pixels = int(sums["labelled"].sum())
        iou = self.class_iou(sums)
        if pixels == 0:
            scores = {"miou": nan, "pixel_accuracy": nan}
        else:
            mean = iou.nan_to_num(nan=0.0).mean() if self.absent == "zero" else iou.nanmean()
            scores = {"miou": float(mean), "pixel_accuracy": int(sums["correct"].sum()) / pixels}
        if self.per_class:
            scores |= {f"iou_{index}": value for index, value in enumerate(iou.tolist())}
        return scores

    def has_label(self, sums: Sums) -> bool:
        """Whether any pixel was labelled."""
        return bool(sums["labelled"].any())

    def _count(self, ids: Tensor) -> Tensor:
        return torch.bincount(ids, minlength=self.num_classes).cpu()

    def _check_range(self, what: str, ids: Tensor) -> None:
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_classes:
            wrong = ids[(ids < 0) | (ids >= self.num_classes)][0].item()
            raise ValueError(
                f"iou: {what} class id {wrong} is outside 0..{self.num_classes - 1}; "
                f"check the protocol's number of classes, or map such pixels to {IGNORE} when reading labels."
            )
