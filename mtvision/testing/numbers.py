"""Comparisons whose messages say what differed, by how much and where; tolerances by dtype in one place."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mtvision.testing.report import PropertyError

TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
"""Largest accepted difference of two ways to compute one thing, as a share of the larger tensor's peak.

In half precision it is a share of root mean squares: single values may be `OUTLIER` times as far apart.
"""
OUTLIER = 5.0


def expect(holds: bool | Tensor, found: str) -> None:
    """Raise `PropertyError(found)` unless `holds`."""
    if not bool(holds):
        raise PropertyError(found)


def same(got: Tensor, want: Tensor, what: str) -> None:
    """Two tensors are equal to the last bit, NaN equal to NaN.

    Raises:
        PropertyError: they are not.
    """
    _same_form(got, want, what)
    close_to(got, want, what, tolerance=0.0)


def close(got: Tensor, want: Tensor, what: str, dtype: torch.dtype = torch.float32) -> None:
    """Two tensors agree within the tolerance of `dtype`.

    Raises:
        PropertyError: they do not; the message holds the difference, the tolerance and the place.
    """
    if dtype.itemsize > 2:
        close_to(got, want, what, tolerance=TOLERANCES[dtype])
        return
    close_to(got, want, what, tolerance=OUTLIER * TOLERANCES[dtype])
    size, apart = _rms(want.detach()), _rms(got.detach().double() - want.detach().double())
    expect(
        apart <= TOLERANCES[dtype] * size or apart == 0,
        f"{what}: root mean square of the difference {apart:.3g}, at most {TOLERANCES[dtype]} x {size:.3g} "
        f"is accepted for {dtype}.",
    )


def close_to(got: Tensor, want: Tensor, what: str, tolerance: float) -> None:
    """Two tensors differ by at most `tolerance` times the largest finite value of either.

    Raises:
        PropertyError: they do not, or their shapes differ.
    """
    if got.shape != want.shape:
        raise PropertyError(f"{what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}.")
    first, second = got.detach().double(), want.detach().double()
    alike = (first == second) | (first.isnan() & second.isnan())
    peak = max(_peak(first), _peak(second))
    difference = torch.where(alike, 0.0, (first - second).abs()).nan_to_num(nan=torch.inf)
    worst = float(difference.max()) if difference.numel() else 0.0
    if worst <= tolerance * peak:
        return
    place = tuple(int(item) for item in torch.unravel_index(difference.argmax(), difference.shape))
    raise PropertyError(
        f"{what}: {float(first[place]):.6g} at {place}, expected {float(second[place]):.6g}; "
        f"difference {worst:.3g}, at most {tolerance * peak:.3g} is accepted."
    )


def all_finite(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Named tensors hold no NaN and no infinity.

    Raises:
        PropertyError: one does; the message names it.
    """
    for name, tensor in tensors:
        bad = int((~tensor.isfinite()).sum())
        expect(bad == 0, f"{name}: {bad} of {tensor.numel()} values are NaN or infinite.")


def _same_form(got: Tensor, want: Tensor, what: str) -> None:
    expect(got.dtype == want.dtype, f"{what}: dtype {got.dtype}, expected {want.dtype}.")


def _rms(tensor: Tensor) -> float:
    known = tensor.double()[tensor.isfinite()]
    return float(known.square().mean().sqrt()) if known.numel() else 0.0


def _peak(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
