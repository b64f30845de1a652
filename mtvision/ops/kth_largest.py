"""The k-th largest magnitude of more numbers than fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_DIGIT = 16
"""Bits that are counted in one pass."""
_WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}


def kth_largest(parts: Callable[[], Iterable[Tensor]], k: int, dtype: torch.dtype = torch.float32) -> float:
    """The k-th largest magnitude, exactly, by counting digits of 16 bits.

    Magnitudes sort like the whole numbers that their bits spell. Every pass narrows 16 bits of the result:
    two passes in float32, four in float64.

    Args:
        parts: a new pass over the numbers, in tensors of any shape.
        k: from 1; 0 gives infinity, which nothing reaches.
        dtype: float32 or float64; magnitudes are rounded to it.

    Raises:
        ValueError: there are fewer than k numbers.

    >>> kth_largest(lambda: [torch.tensor([1.0, -5.0]), torch.tensor([3.0])], 2)
    3.0
    """
    if k == 0:
        return float("inf")
    found, left = 0, k
    for shift in range(torch.finfo(dtype).bits - _DIGIT, -1, -_DIGIT):
        counts = torch.zeros(2**_DIGIT, dtype=torch.int64)
        for part in parts():
            bits = part.detach().to(dtype).abs().flatten().view(_WHOLE[dtype])
            if shift + _DIGIT < torch.finfo(dtype).bits:  # not the first pass
                bits = bits[(bits >> (shift + _DIGIT)) == found]
            counts += torch.bincount((bits >> shift) & (2**_DIGIT - 1), minlength=2**_DIGIT)
        above = counts.flip(0).cumsum(0)
        if int(above[-1]) < left:
            raise ValueError(f"kth_largest: k is {k}, but there are {int(above[-1])} numbers.")
        place = int((above >= left).nonzero()[0])
        left -= int(above[place - 1]) if place else 0
        found = (found << _DIGIT) | (2**_DIGIT - 1 - place)
    return float(torch.tensor([found], dtype=_WHOLE[dtype]).view(dtype))
