"""Floating-point operations of whatever is called, per module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mtvision.core.shapes import RememberedShapes


def count_flops(run: Callable[[], Any]) -> dict[str, int]:
    """{module path: operations inside it, its children included} of one call; 2 per multiply-accumulate.

    Paths begin with the class of the outermost module that is called; `Global` is the total.
    """
    with RememberedShapes(), flop_counter() as counter:
        run()
    return {name: int(sum(ops.values())) for name, ops in counter.get_flop_counts().items()}


def flop_counter() -> FlopCounterMode:
    """torch's FLOP counter as a context manager, extended by operators that it does not count."""
    return FlopCounterMode(display=False, custom_mapping=_missing_formulas())


def _missing_formulas() -> dict[Any, Callable[..., int]]:
    """Formula of the operator behind fused attention on the CPU, which torch's counter does not have."""
    operator = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    return {} if operator is None or operator in flop_registry else {operator: _attention_flops}


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """2 x (Q K^T and A V), from shapes (B, heads, length, width); masks save nothing."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[-2] * (width + value[-1])
