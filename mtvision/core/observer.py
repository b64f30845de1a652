"""Observers of features and logits inside a network, for procedures that compare several passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from mtvision.core.context import Context
from mtvision.core.pyramid import Pyramid

OBSERVER = "observer"
"""Key of `Context.extra`."""


class Observer(Protocol):
    """Called once per forward pass while it is in `Context.extra[OBSERVER]`."""

    def __call__(self, network: Any, pyramid: Pyramid, logits: Mapping[str, Tensor]) -> None:
        """`logits` are those of the heads, before they are resized."""


def observe(context: Context, network: Any, pyramid: Pyramid, logits: Mapping[str, Tensor]) -> None:
    """Call the context's observer with features and logits of a pass, if there is one."""
    observer: Observer | None = context.extra.get(OBSERVER)
    if observer is not None:
        observer(network, pyramid, logits)
