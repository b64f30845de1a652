"""Precision of a forward pass, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run a forward pass in the given precision.

    Raises:
        ValueError: fp16 on a CPU, where it is neither fast nor accurate.
    """
    if precision == "fp32":
        yield
        return
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU; use bf16 on the CPU.")
    import torch  # settings name a precision, and reading them costs no torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.autocast(device.type, dtype=dtype):
        yield
