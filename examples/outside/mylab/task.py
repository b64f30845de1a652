"""Albedo: the colour of a surface without the light that falls on it."""

from __future__ import annotations

from mtvision.core.registry import TASKS
from mtvision.core.task import Task


@TASKS.register_module()
def albedo() -> Task:
    """Reflectance in red, green and blue, each in 0..1; NaN = no label."""
    return Task(
        name="albedo",
        out_channels=3,
        label="values",
        label_channels=3,
        activation="identity",
        loss={"type": "CharbonnierLoss", "softness": 0.01},
        metrics=({"type": "albedo_error"}, {"type": "values"}),
        headline="si_rmse",
        higher_is_better=False,
    )
