"""DiTASK: a smooth map of the index axis of a weight's sorted singular values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.adapters.low_rank.delta import Delta

_STEPS = 16


def warped(velocity: Tensor, count: int) -> Tensor:
    """How far `count` points of [0, 1] at equal distances move along a velocity field in one unit of time.

    The field is continuous, linear in each of N cells and 0 at both ends, so the map is smooth and rising
    and keeps the ends. It is integrated by 16 steps of the classical Runge-Kutta method.

    Args:
        velocity: (N - 1), at the inner knots.
        count: of points.
    """
    knots = F.pad(velocity, (1, 1))
    cells = len(knots) - 1

    def speed(x: Tensor) -> Tensor:
        place = x.clamp(0, 1) * cells
        left = place.floor().clamp(max=cells - 1).long()
        return torch.lerp(knots[left], knots[left + 1], place - left)

    start = torch.linspace(0, 1, count, device=velocity.device, dtype=velocity.dtype)
    moved, step = torch.zeros_like(start), 1 / _STEPS
    for _ in range(_STEPS):
        first = speed(start + moved)
        second = speed(start + moved + step / 2 * first)
        third = speed(start + moved + step / 2 * second)
        fourth = speed(start + moved + step * third)
        moved = moved + step / 6 * (first + 2 * second + 2 * third + fourth)
    return moved


def resampled(values: Tensor, moved: Tensor) -> Tensor:
    """Values (n) read between entries: entry i at position i + `moved`[i]·(n - 1)."""
    last = len(values) - 1
    place = (torch.arange(len(values), device=values.device) + moved * last).clamp(0, last)
    left = place.floor().clamp(max=max(last - 1, 0)).long()
    return torch.lerp(values[left], values[(left + 1).clamp(max=last)], place - left)


class SpectrumWarp(Delta):
    """Replaces singular values s by s read along a warped index axis; a fresh one moves nothing.

    The released code writes the field in another basis of the same space (libcpab's).

    Args:
        cells: linear pieces of the velocity field.
        parts: equal parts of the output with decompositions of their own and one common field (3 for qkv).
    """

    def __init__(self, cells: int, parts: int) -> None:
        super().__init__()
        self.velocity = nn.Parameter(torch.zeros(cells - 1))
        self.parts = parts
        self._known: tuple[Tensor, int, list[tuple[Tensor, Tensor, Tensor]]] | None = None

    def forward(self, x: Tensor, frozen: Tensor, layer: nn.Linear) -> Tensor:
        """The update (..., out)."""
        del frozen
        changed = []
        found = self.decomposition(layer.weight)
        for (left, _, right), change in zip(found, self.changes(found), strict=True):
            change = change.to(x.dtype)
            changed.append(F.linear(F.linear(x, right.to(x.dtype)) * change, left.to(x.dtype)))
        return torch.cat(changed, dim=-1)

    def weight(self, layer: nn.Linear) -> Tensor:
        """U·(s' - s)·Vᵀ of every part."""
        found = self.decomposition(layer.weight)
        pairs = zip(found, self.changes(found), strict=True)
        return torch.cat([left * change @ right for (left, _, right), change in pairs])

    def changes(self, found: list[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
        """New minus old singular values of every part; parts of one size move alike."""
        moved = {size: warped(self.velocity, size) for size in {len(values) for _, values, _ in found}}
        return [resampled(values, moved[len(values)]) - values for _, values, _ in found]

    def decomposition(self, weight: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(U, s, Vᵀ) of every part of a frozen weight; computed again after the weight has changed."""
        known = self._known
        if known is None or known[0] is not weight or known[1] != weight._version:
            parts = weight.detach().chunk(self.parts)
            known = weight, weight._version, [torch.linalg.svd(item, full_matrices=False) for item in parts]
            if not weight.is_meta and not torch.compiler.is_compiling():
                self._known = known
        return known[2]

    def __getstate__(self) -> dict[str, object]:
        """Without the decomposition, which belongs to one weight tensor."""
        return {**self.__dict__, "_known": None}
