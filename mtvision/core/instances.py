"""Instances in one integer map, and how a network's centres and offsets become such a map.

A label of kind `instances` is an integer map (H, W): 0 = no instance, 255 = no label. Instance n of thing
class c has the value 256 (c + 1) + n with n in 0..255. It is a map of ids like any other, so flips, crops,
zooms and padding need no rule of their own. The loss derives centres and offsets from it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.registry import ACTIVATIONS
from mtvision.core.task import EXTRA_CHANNELS, IGNORE

BASE = IGNORE + 1
"""Instance ids begin here: `id // BASE - 1` is the thing class, `id % BASE` the instance's number."""
MAX_CLASSES = 65535 // BASE - 1
"""Ids fit into 16 bits, so that files and OpenCV can hold them."""
OFFSET_UNIT = 32.0
"""Pixels of the label that an offset logit of 1 stands for."""


def encode_instances(classes: NDArray[np.integer], ids: NDArray[np.integer]) -> NDArray[np.int32]:
    """The label map of thing classes and instance ids.

    Args:
        classes: thing class of every pixel, (H, W): 0.., -1 = not a thing.
        ids: any integers that are different for different instances, (H, W); one id in two classes is two
            instances.

    Returns:
        int32 (H, W); instances of a class are numbered by rising id.

    Raises:
        ValueError: more than 256 instances of one class, or a class id too large.
    """
    result = np.zeros(classes.shape, dtype=np.int32)
    for category in np.unique(classes[classes >= 0]).tolist():
        if category >= MAX_CLASSES:
            raise ValueError(f"instances: thing class {category} is outside 0..{MAX_CLASSES - 1}.")
        mask = classes == category
        distinct, numbers = np.unique(ids[mask], return_inverse=True)
        if distinct.size > BASE:
            raise ValueError(
                f"instances: {distinct.size} instances of class {category} in one image, at most {BASE} fit; "
                "label the smallest 255."
            )
        result[mask] = BASE * (category + 1) + numbers.reshape(-1)
    return result


def instance_classes(ids: Tensor) -> Tensor:
    """Thing class + 1 of every pixel of a label map; 0 without instance, and 255 stays 255."""
    return torch.where(ids == IGNORE, ids, torch.div(ids, BASE, rounding_mode="floor"))


@ACTIVATIONS.register_module("instances")
def group_instances(
    logits: Tensor, zoom: float = 1.0, *, threshold: float = 0.1, kernel: int = 7, limit: int = 100
) -> Tensor:
    """Instances from class scores, centres and offsets (Panoptic-DeepLab, Cheng et al., CVPR 2020).

    Centres are the local maxima of the centre map within `kernel` pixels that exceed `threshold`, the `limit`
    highest at most. A pixel whose best class is a thing joins the centre nearest to where its offset points.
    An instance has the class with the most probability over its pixels. Its confidence is the mean of that
    probability times the height of the centre.

    Args:
        logits: (B, K + 4, H, W): background and K thing classes, centre, offset along rows and columns.
        zoom: how much larger these pixels are than those the network was trained on; offsets grow with it.
        threshold: least height of a centre, in 0..1.
        kernel: side of the window of the local maximum, odd.
        limit: most instances of an image.

    Returns:
        float32 (B, 2, H, W): id as in a label map (0 = none), and the confidence of the pixel's instance.
    """
    if logits.shape[1] <= EXTRA_CHANNELS:
        raise ValueError(f"instances: logits have {logits.shape[1]} channels, expected K + {EXTRA_CHANNELS}.")
    return torch.stack([_group_image(item.float(), zoom, threshold, kernel, limit) for item in logits])


def _group_image(logits: Tensor, zoom: float, threshold: float, kernel: int, limit: int) -> Tensor:
    result = logits.new_zeros((2, *logits.shape[1:]))
    probability = logits[:-3].softmax(dim=0)
    centre = logits[-3]  # not clamped yet: a plateau at 1 would be many maxima
    highest = F.max_pool2d(centre[None, None], kernel, stride=1, padding=kernel // 2)[0, 0]
    peaks = ((centre == highest) & (centre > threshold)).nonzero()
    rows, columns = (probability.max(dim=0).indices > 0).nonzero(as_tuple=True)
    if not len(peaks) or not len(rows):
        return result
    heights = centre[peaks[:, 0], peaks[:, 1]]
    order = heights.argsort(descending=True, stable=True)[: 4 * limit]
    order = order[_first_of_ties(peaks[order], kernel // 2)][:limit]
    peaks, heights = peaks[order].float(), heights[order].clamp(max=1)
    offsets = logits[-2:, rows, columns] * (OFFSET_UNIT * zoom)
    target = torch.stack([rows, columns]).float() + offsets
    nearest = torch.zeros_like(rows)
    least = torch.full_like(target[0], torch.inf)
    for number, peak in enumerate(peaks):  # one at a time: pixels times centres would not fit into memory
        distance = (target[0] - peak[0]).square() + (target[1] - peak[1]).square()
        closer = distance < least
        least = torch.where(closer, distance, least)
        nearest = torch.where(closer, number, nearest)
    things = probability[1:, rows, columns].double()
    sums = things.new_zeros((len(things), len(peaks))).index_add_(1, nearest, things)
    count = torch.bincount(nearest, minlength=len(peaks)).clamp(min=1)
    best, category = (sums / count).max(dim=0)
    ids = BASE * (category + 1) + torch.arange(len(peaks), device=logits.device)
    confidence = (best * heights.double()).clamp(0, 1)
    result[0, rows, columns] = ids[nearest].float()
    result[1, rows, columns] = confidence[nearest].float()
    return result


def _first_of_ties(peaks: Tensor, reach: int) -> Tensor:
    """Which local maxima (N, 2), highest first, have no earlier one within `reach`: ties share a window."""
    near = (peaks[:, None] - peaks[None]).abs().amax(dim=-1) <= reach
    kept = torch.ones(len(peaks), dtype=torch.bool, device=peaks.device)
    for number in near.tril(-1).any(dim=1).nonzero().flatten().tolist():
        kept[number] = not bool((near[number, :number] & kept[:number]).any())
    return kept
