"""Instances: class scores, a map of centres and offsets to them, all derived from one map of ids."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.instances import BASE, OFFSET_UNIT
from mtvision.core.registry import LOSSES
from mtvision.core.task import EXTRA_CHANNELS, IGNORE
from mtvision.core.values import Factor, Share
from mtvision.losses.loss import Loss, at_least_one, keep, stacked_counts

_REACH = 3
"""Gaussians are drawn up to this many standard deviations."""


@LOSSES.register_module()
class InstanceLoss(Loss):
    """Instance loss L = CE + w_h MSE(centres) + w_o L1(offsets); its targets come from the map of ids.

    CE over background and thing classes, mean over the share `hardest` of the labelled pixels, those with the
    largest values. MSE between the centre channel and the highest of Gaussians around the centroids of the
    visible parts, mean over labelled pixels. L1 between offset and (centroid − pixel), in pixels, both
    components added, mean over the pixels of instances.

    The offset term is the instance loss of Kendall et al. (CVPR 2018, section 4.2). The other terms are those
    of Panoptic-DeepLab (Cheng et al., CVPR 2020). Its Gaussians have 8 px throughout. Here they follow the
    instance's size, √area / 8 within `sigma`, because maps range from 96 to 1024 rows.

    Args:
        heat_weight: w_h.
        offset_weight: w_o.
        hardest: share of pixels that the class term is averaged over, in 0..1. Panoptic-DeepLab takes .2 and
            pretrained weights; from scratch a small share ends at one probability everywhere. Below 1 the
            hardest pixels are those of each process.
        sigma: least and largest standard deviation of a centre's Gaussian, in pixels.
    """

    label_axes = 3

    def __init__(
        self,
        heat_weight: Factor = 200.0,
        offset_weight: Factor = 0.01,
        hardest: Share = 1.0,
        sigma: tuple[float, float] = (2.0, 8.0),
    ) -> None:
        self.heat_weight = heat_weight
        self.offset_weight = offset_weight
        self.hardest = hardest
        self.sigma = (float(sigma[0]), float(sigma[1]))
        if not 0 < hardest <= 1:
            raise ValueError(f"InstanceLoss: hardest is a share of the pixels in 0..1, got {hardest}.")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"InstanceLoss: sigma must be (least, largest) and positive, got {sigma}.")

    def counts(self, label: Tensor) -> Tensor:
        """Labelled pixels and pixels of instances, (2,)."""
        return stacked_counts((label != IGNORE).sum(), (label >= BASE).sum())

    def compute(self, logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Sum of the three terms, each over the pixels that `counts` holds."""
        if logits.shape[1] <= EXTRA_CHANNELS:
            raise ValueError(
                f"InstanceLoss: logits have {logits.shape[1]} channels, expected K thing classes + "
                f"{EXTRA_CHANNELS}; check out_channels of the task and its head."
            )
        valid = label != IGNORE
        thing = label >= BASE
        category = torch.where(valid, torch.div(label, BASE, rounding_mode="floor"), IGNORE)
        targets = [instance_targets(item, self.sigma) for item in label]
        heat, offset = (torch.stack(parts).to(logits) for parts in zip(*targets, strict=True))
        scores, centre, wanted = keep(valid[:, None], logits[:, :-3], logits[:, -3:-2], heat[:, None])
        each = F.cross_entropy(scores, category, ignore_index=IGNORE, reduction="none").flatten()
        pixels, inside = at_least_one(counts[0]), at_least_one(counts[1])
        count = max(round(self.hardest * int(valid.sum())), 1)
        hardest = each.topk(count, sorted=False).values.sum()
        classes = hardest / at_least_one((self.hardest * counts[0]).round())
        centres = (centre - wanted).square().sum()
        found, true = keep(thing[:, None], logits[:, -2:] * OFFSET_UNIT, offset)
        offsets = (found - true).abs().sum()
        return classes + self.heat_weight * centres / pixels + self.offset_weight * offsets / inside


def instance_targets(label: Tensor, sigma: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Target centre map and offsets of one image.

    Args:
        label: instance ids, (H, W).
        sigma: least and largest standard deviation of a centre's Gaussian, in pixels.

    Returns:
        Centre map (H, W) in 0..1, and offsets (2, H, W) to the centroid along rows and columns in pixels, 0
        outside of instances; float32.
    """
    height, width = label.shape
    heat = torch.zeros((height, width), device=label.device)
    offset = torch.zeros((2, height, width), device=label.device)
    rows, columns = (label >= BASE).nonzero(as_tuple=True)
    if not len(rows):
        return heat, offset
    _, index = torch.unique(label[rows, columns], return_inverse=True)
    area = torch.bincount(index).double()
    centres = torch.stack(  # sums of whole numbers, exact in any order
        [torch.bincount(index, weights=place.double()) / area for place in (rows, columns)]
    )
    offset[:, rows, columns] = (centres[:, index] - torch.stack([rows, columns])).float()
    widths = (area.sqrt() / 8).clamp(*sigma)
    for row, column, spread in zip(*centres.tolist(), widths.tolist(), strict=True):
        reach = math.ceil(_REACH * spread)
        top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
        down = torch.arange(top, min(int(row) + reach + 2, height), device=label.device)
        along = torch.arange(left, min(int(column) + reach + 2, width), device=label.device)
        squared = (down[:, None] - row) ** 2 + (along[None] - column) ** 2
        window = heat[top : top + len(down), left : left + len(along)]
        torch.maximum(window, torch.exp(-squared / (2 * spread**2)), out=window)
    return heat, offset
