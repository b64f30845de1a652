"""Floating-point operations of whatever is called, per module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.module_tracker import ModuleTracker

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
    counter = FlopCounterMode(display=False, custom_mapping=_missing_formulas())
    counter.mod_tracker = _Modules()
    return counter


class _Modules(ModuleTracker):
    """torch's record of the modules that run, which also takes views of weights as inputs of modules.

    For the backward pass it asks every input that requires a gradient for its gradient function. A view of a
    weight, such as `embedding.weight[task]`, has none where gradients are off.
    """

    def _fw_pre_hook(self, mod: nn.Module, input: Any) -> None:  # noqa: A002  torch's name
        super()._fw_pre_hook(mod, input if torch.is_grad_enabled() else ())

    def _fw_post_hook(self, mod: nn.Module, input: Any, output: Any) -> None:  # noqa: A002
        super()._fw_post_hook(mod, input, output if torch.is_grad_enabled() else ())


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
