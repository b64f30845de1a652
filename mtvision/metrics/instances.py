"""Average precision of instance masks as COCO defines it, from additive counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from mtvision.core.instances import BASE
from mtvision.core.registry import METRICS
from mtvision.core.task import IGNORE
from mtvision.core.values import Count, Positive
from mtvision.metrics.checks import PredictionError, first
from mtvision.metrics.sums import Metric, Ranges, Sums, check_tensors

IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""COCO's .50 : .05 : .95."""
RECALLS = torch.from_numpy(np.linspace(0, 1, 101))
"""Recalls at which COCO reads the precision."""
MAX_DETECTIONS = 100
"""COCO's limit of detections per image and class."""


@dataclass(frozen=True)
class Instance:
    """One object in one image.

    Args:
        mask: its pixels, bool (H, W).
        category: class id.
        score: confidence in 0..1; not used for true instances.
        ignore: a true region whose detections count neither as right nor as wrong (COCO's crowds).
    """

    mask: NDArray[np.bool_]
    category: int
    score: float = 1.0
    ignore: bool = False


@METRICS.register_module("instances")
@dataclass(frozen=True, kw_only=True)
class InstanceAP(Metric):
    """COCO's 101-point average precision, mean over classes with true instances and IoU .50 .. .95.

    A precision-recall curve needs all detections of the data set in the order of their scores. Counts per
    score bin can be added over images instead; detections whose scores fall into one bin become one point of
    the curve. With scores in different bins the result equals pycocotools.

    Ignored regions are pixels without a label and true instances that are too small. A detection that
    overlaps them as far as the IoU limit counts neither as right nor as wrong (COCO's rule for crowds).

    Args:
        num_classes: class ids are 0 .. num_classes - 1.
        bins: score bins over 0..1.
        minimum_area: true instances of fewer pixels are ignored; Cityscapes takes 100.
    """

    ranges: ClassVar[Ranges] = {
        "instance_AP": (0.0, 1.0),
        "instance_AP50": (0.0, 1.0),
        "instance_AP75": (0.0, 1.0),
    }

    num_classes: Positive
    bins: Positive = 256
    minimum_area: Count = 1

    def check_prediction(self, prediction: Tensor, label: Tensor) -> None:
        """Refuse ids that are no whole numbers, besides what no metric takes."""
        super().check_prediction(prediction, label)
        broken = prediction[:1] != prediction[:1].floor()
        if bool(broken.any()):
            raise PredictionError(
                f"{int(broken.sum()):,} of {broken.numel():,} instance ids with a fraction, the first at "
                f"{first(broken)}",
                "whole numbers in the first channel",
            )

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Counts of one image.

        Args:
            prediction: ids and confidences of `mtvision.core.instances.group_instances`, (2, H, W).
            label: instance ids, integer (H, W), 0 = no instance, 255 = no label.

        Returns:
            As `count`; `images` is 0 where no pixel has a label.

        Raises:
            ValueError: the shapes differ, or a class id or confidence is out of range.
        """
        check_tensors("instances", prediction, label)
        if prediction.ndim != 3 or prediction.shape[0] != 2 or prediction.shape[1:] != label.shape:
            raise ValueError(
                f"instances: prediction has shape {tuple(prediction.shape)} and label {tuple(label.shape)}; "
                "they must be (2, H, W) and (H, W), without batch axis. Resize predictions to the label's "
                "size."
            )
        found = _instances_of_ids(prediction[0].cpu().long(), prediction[1].cpu())
        truths = [
            replace(item, ignore=int(item.mask.sum()) < self.minimum_area)
            for item in _instances_of_ids(label.cpu())
        ]
        unlabelled = (label == IGNORE).cpu().numpy()
        if unlabelled.any():
            truths += [Instance(unlabelled, c, ignore=True) for c in sorted({i.category for i in found})]
        return self.count(found, truths) | {"images": torch.tensor(int(not unlabelled.all()))}

    def count(self, prediction: Sequence[Instance], label: Sequence[Instance]) -> Sums:
        """Counts of one image from lists of instances.

        Args:
            prediction: detected instances, in any order.
            label: true instances.

        Returns:
            `right`, `wrong`: int64 (10, num_classes, bins), detections per IoU limit, class and score bin;
            `true`: int64 (num_classes,), instances; `images`: 1.

        Raises:
            ValueError: sizes differ, or a class id or score is out of range.
        """
        self._check(prediction, label)
        right = np.zeros((len(IOU_THRESHOLDS), self.num_classes, self.bins), dtype=np.int64)
        wrong = np.zeros_like(right)
        true = np.zeros(self.num_classes, dtype=np.int64)
        for category in {item.category for item in (*prediction, *label)}:
            found = sorted((item for item in prediction if item.category == category), key=lambda i: -i.score)
            found = found[:MAX_DETECTIONS]
            truths = sorted((item for item in label if item.category == category), key=lambda i: i.ignore)
            true[category] = sum(not item.ignore for item in truths)
            overlap = _overlaps(found, truths)
            crowd = np.array([item.ignore for item in truths], dtype=bool)
            bins = [min(int(item.score * self.bins), self.bins - 1) for item in found]
            for index, threshold in enumerate(IOU_THRESHOLDS):
                for bin_index, outcome in zip(bins, _greedy(overlap, crowd, threshold), strict=True):
                    right[index, category, bin_index] += outcome == 1
                    wrong[index, category, bin_index] += outcome == 0
        counts = {"right": right, "wrong": wrong, "true": true, "images": np.int64(1)}
        return {name: torch.as_tensor(value) for name, value in counts.items()}

    def score(self, sums: Sums) -> dict[str, float]:
        """`instance_AP`, `instance_AP50`, `instance_AP75` as fractions; NaN without true instances."""
        present = sums["true"] > 0
        if not bool(present.any()):
            return dict.fromkeys(("instance_AP", "instance_AP50", "instance_AP75"), nan)
        right = sums["right"].flip(-1).cumsum(-1).double()
        found = right + sums["wrong"].flip(-1).cumsum(-1)
        recall = right / sums["true"].clamp(min=1)[None, :, None]
        precision = right / found.clamp(min=1)
        envelope = precision.flip(-1).cummax(-1).values.flip(-1)
        at = RECALLS.expand(*recall.shape[:-1], -1).contiguous()
        position = torch.searchsorted(recall.contiguous(), at)
        padded = torch.cat([envelope, torch.zeros_like(envelope[..., :1])], dim=-1)
        average = padded.gather(-1, position).mean(-1)[:, present].mean(-1)
        return {
            "instance_AP": float(average.mean()),
            "instance_AP50": float(average[0]),
            "instance_AP75": float(average[5]),
        }

    def has_label(self, sums: Sums) -> bool:
        """Whether any image had a label; without a true instance there is still no score."""
        return bool(sums["images"] > 0)

    def _check(self, prediction: Sequence[Instance], label: Sequence[Instance]) -> None:
        items = (*prediction, *label)
        for item in items:
            if not 0 <= item.category < self.num_classes:
                raise ValueError(f"instances: class id {item.category} is outside 0..{self.num_classes - 1}.")
            if not 0 <= item.score <= 1:
                raise ValueError(f"instances: a score must lie in 0..1, got {item.score}.")
            if item.mask.shape != items[0].mask.shape:
                raise ValueError(
                    f"instances: masks of {item.mask.shape} and {items[0].mask.shape} pixels in one image; "
                    "resize predictions to the label's size."
                )


def _instances_of_ids(ids: Tensor, scores: Tensor | None = None) -> list[Instance]:
    """Instances of a map of ids in the suite's encoding; an instance has one score throughout."""
    result = []
    for item in torch.unique(ids[ids >= BASE]).tolist():
        mask = ids == item
        score = 1.0 if scores is None else float(scores[mask][0])
        result.append(Instance(mask.numpy(), item // BASE - 1, score))
    return result


def instances_from_maps(
    classes: Tensor, ids: Tensor, *, things: Sequence[int], scores: Tensor | None = None, minimum: int = 1
) -> list[Instance]:
    """Instances of a class map and an instance map.

    Args:
        classes: class of every pixel, (H, W); 255 = none.
        ids: instance of every pixel, (H, W); 0 and negative = none.
        things: classes that have instances.
        scores: confidence of every pixel, (H, W), 0..1; an instance gets their mean. 1 if omitted.
        minimum: instances of fewer pixels are dropped.

    Returns:
        One instance per id, of the class that most of its pixels have if it is one of `things`.
    """
    result = []
    for instance in torch.unique(ids[ids > 0]).tolist():
        mask = (ids == instance) & (classes != IGNORE)
        votes = classes[mask]
        if votes.numel() < minimum or votes.numel() == 0:
            continue
        category = int(votes.mode().values)
        if category in things:
            score = float(scores[mask].double().mean()) if scores is not None else 1.0
            result.append(Instance(mask.cpu().numpy(), category, score))
    return result


def _overlaps(found: Sequence[Instance], truths: Sequence[Instance]) -> NDArray[np.float64]:
    """IoU of every detection with every truth; for ignored truths, the share of the detection inside."""
    if not found or not truths:
        return np.zeros((len(found), len(truths)))
    encoded = [
        [coco_mask.encode(np.asfortranarray(i.mask, dtype=np.uint8)) for i in group]
        for group in (found, truths)
    ]
    return np.asarray(coco_mask.iou(*encoded, [int(item.ignore) for item in truths]), dtype=np.float64)


def _greedy(overlap: NDArray[np.float64], crowd: NDArray[np.bool_], threshold: float) -> list[int]:
    """For each detection, by falling score: 1 matched, 0 wrong, -1 inside an ignored region.

    Takes the free truth of the highest overlap, the last one on ties, and an ignored one only if no other
    fits, as COCOeval does.
    """
    free = np.ones(crowd.size, dtype=bool)
    outcomes = []
    for row in overlap:
        outcome = 0
        for group, value in ((~crowd & free, 1), (crowd, -1)):
            fitting = np.flatnonzero(group & (row >= min(threshold, 1 - 1e-10)))
            if fitting.size:
                best = fitting[::-1][int(np.argmax(row[fitting[::-1]]))]
                free[best] &= value != 1
                outcome = value
                break
        outcomes.append(outcome)
    return outcomes
