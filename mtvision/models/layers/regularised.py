"""Modules that add a loss of their own."""

from __future__ import annotations

from typing import Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Regularised(Protocol):
    """A module with a loss that no balancer sees; `Network.auxiliary_losses` finds it by this method.

    The class has to define the method; it need not derive from this one.
    """

    def auxiliary_loss(self) -> Tensor:
        """Scalar that is added to the losses of the last forward pass."""
        ...


def is_regularised(module: nn.Module) -> TypeGuard[Regularised]:
    """Whether the class of a module has a loss of its own."""
    # Asked of every module in every step. Python remembers the answer for a class, not for an instance.
    return issubclass(type(module), Regularised)
