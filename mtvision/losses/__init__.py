"""One loss file per task; see `docs/losses.md` for the formulas and who publishes with which.

loss(logits (B, C, H, W), label) -> float32 scalar
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.losses.depth import L1Loss
    from mtvision.losses.edge import EdgeLoss
    from mtvision.losses.instance import InstanceLoss
    from mtvision.losses.loss import Loss
    from mtvision.losses.normals import NormalsCosineLoss, NormalsL1Loss
    from mtvision.losses.saliency import BalancedBinaryLoss, BalancedCrossEntropyLoss
    from mtvision.losses.semseg import CrossEntropyLoss
    from mtvision.losses.task_losses import NonFiniteLossError, TaskLosses, check_finite
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "BalancedBinaryLoss",
    "BalancedCrossEntropyLoss",
    "CrossEntropyLoss",
    "EdgeLoss",
    "InstanceLoss",
    "L1Loss",
    "Loss",
    "NonFiniteLossError",
    "NormalsCosineLoss",
    "NormalsL1Loss",
    "TaskLosses",
    "check_finite",
]
