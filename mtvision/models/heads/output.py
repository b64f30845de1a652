"""How heads say which layer makes their logits."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from torch import nn


@runtime_checkable
class HasOutputLayer(Protocol):
    """A head whose logits may start at any constant; `training.init_from_data` finds it by this method.

    The class has to define the method; it need not derive from this one.
    """

    def output_layer(self) -> nn.Conv2d:
        """The convolution whose output the logits are."""
        ...


def output_layer(head: nn.Module) -> nn.Conv2d | None:
    """The layer that a head declares; None if it declares none."""
    return head.output_layer() if isinstance(head, HasOutputLayer) else None


def as_convolution(layer: nn.Module) -> nn.Conv2d:
    """A layer of a container, which torch's types do not know."""
    return cast(nn.Conv2d, layer)
