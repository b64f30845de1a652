"""The constant predictor: the best answer that is independent of the image, the lowest row of a table."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.task import IGNORE, Task

_GRID = 64
"""Cells per axis of the cube around the unit sphere in which directions are collected."""
_STEPS = 50


class ConstantPredictor:
    """Collects label statistics of a task and predicts one value everywhere.

    * Class maps (`argmax`): the most frequent class.
    * Saliency (`foreground` or `sigmoid` on class maps): the share of salient pixels as probability.
    * Boundaries (`sigmoid` on value maps): the mean label as probability.
    * Instances: none.
    * Directions: the unit vector with the smallest mean angle to all labels (spherical median), found by
      Weiszfeld's iteration over directions collected in cells 1/32 wide.
    * Other value maps (depth, disparity): the mean per channel, which is the constant of least RMSE.

    Args:
        task: whose labels are given to `update`.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        size: tuple[int, ...]
        if task.label == "instances":
            size = (2,)
        elif task.label == "classes":
            size = (task.num_classes,)
        else:
            size = (_GRID**3, 3) if task.geometry == "direction" else (task.label_channels,)
        self._sum = torch.zeros(size, dtype=torch.float64)
        self._count = torch.zeros(size[:1], dtype=torch.float64)

    def update(self, label: Tensor) -> None:
        """Take one image's label, (H, W) or (C, H, W), into account; it is not changed."""
        if self.task.label == "classes":
            self._count += torch.bincount(label[label != IGNORE].cpu(), minlength=self._count.numel())
            return
        if self.task.label == "instances":
            self._count += 1
            return
        known = label[:, torch.isfinite(label).all(dim=0)].double().cpu()
        if self.task.geometry == "direction":
            unit = F.normalize(known[:, (known != 0).any(dim=0)], dim=0).T
            cell = ((unit + 1) * (_GRID / 2)).long().clamp(max=_GRID - 1)
            index = (cell * torch.tensor([_GRID**2, _GRID, 1])).sum(dim=1)
            self._sum.index_add_(0, index, unit)
            self._count += torch.bincount(index, minlength=_GRID**3)
        else:
            self._sum += known.sum(dim=1)
            self._count += known.shape[1]

    @property
    def value(self) -> Tensor:
        """The constant: a class id (), a probability (1,), or a vector (C,); (0, 0) for instances.

        Raises:
            ValueError: no labelled pixel was seen.
        """
        if not bool(self._count.sum() > 0):
            raise ValueError(
                f"constant predictor: no labelled pixel of task '{self.task.name}' was seen; "
                "call update with the labels of the training split first."
            )
        if self.task.label == "classes":
            if self.task.activation == "argmax":
                return self._count.argmax()
            return (self._count[1:2] / self._count.sum()).float()
        if self.task.geometry == "direction":
            return self._median_direction().float()
        # further channels of a label are for its metric alone
        return (self._sum / self._count)[: self.task.out_channels].float()

    def prediction(self, size: tuple[int, int]) -> Tensor:
        """The constant as a prediction of (H, W) pixels, in the form that the task's metric takes."""
        value = self.value
        if value.ndim == 0:
            return torch.full(size, int(value), dtype=torch.int64)
        return value[:, None, None].expand(-1, *size).contiguous()

    def _median_direction(self) -> Tensor:
        used = self._count > 0
        count, centre = self._count[used], F.normalize(self._sum[used], dim=1)
        start = self._sum.sum(dim=0)
        best = F.normalize(start if float(start.norm()) > 0 else centre[count.argmax()], dim=0)
        best_cost = self._mean_angle(best, centre, count)
        current = best
        for _ in range(_STEPS):
            cosine = (centre @ current).clamp(-1, 1)
            angle = torch.arccos(cosine)
            tangent = F.normalize(centre - cosine[:, None] * current, dim=1)
            weight = count / angle.clamp(min=1e-3)
            step = (count[:, None] * tangent).sum(dim=0) / weight.sum()
            length = step.norm()
            if float(length) < 1e-9:
                break
            current = F.normalize(current * length.cos() + step / length * length.sin(), dim=0)
            cost = self._mean_angle(current, centre, count)
            if cost < best_cost:
                best, best_cost = current, cost
        return best

    @staticmethod
    def _mean_angle(direction: Tensor, centre: Tensor, count: Tensor) -> float:
        angle = torch.arccos((centre @ direction).clamp(-1, 1))
        return float((angle * count).sum() / count.sum())
