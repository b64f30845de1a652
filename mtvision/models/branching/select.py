"""Choosing among tensors, softly or exactly, with gradients for the choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def mix(candidates: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Σ_k weights[k] · candidates[k]; a single candidate is returned as it is."""
    if len(candidates) == 1:
        return candidates[0]
    total = weights[0].to(candidates[0].dtype) * candidates[0]
    for weight, item in zip(weights[1:], candidates[1:], strict=True):
        total = total + weight.to(item.dtype) * item
    return total


def select(bundles: Sequence[Sequence[Tensor]], weights: Tensor, chosen: int) -> list[Tensor]:
    """The tensors of bundle `chosen`, bit for bit; the gradient of weight k is Σ <gradient, bundle k>.

    That is Σ_k w_k · bundle_k with w replaced by the one-hot choice going forward (straight-through).

    Args:
        bundles: K lists of equally many tensors, with equal shapes across lists.
        weights: (K,).
        chosen: index of a bundle.
    """
    count = len(bundles[0])
    if len(bundles) == 1 or not weights.requires_grad:
        return list(bundles[chosen])
    flat = [item for bundle in bundles for item in bundle]
    result: tuple[Tensor, ...] = _Select.apply(weights, chosen, count, *flat)  # type: ignore[no-untyped-call]
    return list(result)


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, chosen: int, count: int, *flat: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*flat)
        ctx.chosen, ctx.count, ctx.dtype = chosen, count, weights.dtype
        return tuple(item.view_as(item) for item in flat[chosen * count : (chosen + 1) * count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        flat, count = ctx.saved_tensors, ctx.count
        bundles = [flat[start : start + count] for start in range(0, len(flat), count)]
        products = torch.stack(
            [
                torch.stack(
                    [
                        (gradient.to(ctx.dtype) * item.to(ctx.dtype)).sum()
                        for gradient, item in zip(gradients, bundle, strict=True)
                        if gradient is not None
                    ]
                    or [flat[0].new_zeros((), dtype=ctx.dtype)]
                ).sum()
                for bundle in bundles
            ]
        )
        through: list[Tensor | None] = [None] * len(flat)
        through[ctx.chosen * count : (ctx.chosen + 1) * count] = gradients
        return (products, None, None, *through)
