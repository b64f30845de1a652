"""Whether an exported file gives what the network gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtvision.evaluation.export.formats import Run
from mtvision.evaluation.export.portable import Portable

TOLERANCE = 1e-4
"""Largest accepted difference of real values, as a share of the largest value or of 1."""
OTHER_CLASSES = 1e-3
"""Largest accepted share of pixels with another class; classes with nearly equal logits may change places."""


@dataclass(frozen=True)
class Parity:
    """One output at one size, beside the network's own.

    Args:
        task: name.
        shape: (B, 3, H, W) of the images.
        difference: of real values over their peak (at least 1); of class ids the share of other pixels.
        classes: whether values are class ids.
    """

    task: str
    shape: tuple[int, ...]
    difference: float
    classes: bool

    @property
    def holds(self) -> bool:
        """Whether the difference is accepted."""
        return self.difference <= (OTHER_CLASSES if self.classes else TOLERANCE)

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        found = f"{self.difference:.2%} other pixels" if self.classes else f"difference {self.difference:.1e}"
        return f"{self.task} at {size}: {found}{'' if self.holds else ', which is too much'}"


def compare(portable: Portable, run: Run, shapes: Sequence[tuple[int, ...]]) -> list[Parity]:
    """Run a file and the network on random images of each shape.

    Args:
        portable: the network.
        run: the file, from `Format.read`.
        shapes: (B, 3, H, W) of each trial.
    """
    found = []
    for number, shape in enumerate(shapes):
        drawn = torch.Generator().manual_seed(number)
        image = torch.randint(256, shape, generator=drawn, dtype=torch.uint8)
        with torch.no_grad():
            own = portable(image)
        other = run(image)
        found += [_parity(name, shape, other[name], item) for name, item in own.items()]
    return found


def trial_shapes(portable: Portable, size: tuple[int, int] | None) -> list[tuple[int, ...]]:
    """A batch and a single image; without a fixed size also a turned one and one that no stride divides."""
    height, width = size or portable.example_size()
    if size:
        return [(2, 3, height, width), (1, 3, height, width)]
    return [(2, 3, height, width), (1, 3, width, height), (1, 3, height + 13, width - 27)]


def _parity(task: str, shape: tuple[int, ...], got: Tensor, want: Tensor) -> Parity:
    if got.shape != want.shape:
        return Parity(task, shape, float("inf"), False)
    if not want.is_floating_point():
        return Parity(task, shape, float((got != want).double().mean()), True)
    peak = max(float(want.abs().max()), 1.0)
    return Parity(task, shape, float((got - want).abs().max()) / peak, False)
