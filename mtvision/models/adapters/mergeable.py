"""Layers whose task-dependent change can become part of their weights."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from mtvision.models.adapters.adapter import Adapter


class Mergeable:
    """Base of layers that keep the parameters of a plain layer and change them in the forward pass.

    Attributes:
        change_prefixes: first parts of the names of what the plain layer does not have.
    """

    change_prefixes: tuple[str, ...] = ()

    @abstractmethod
    def merged(self, task: str | None) -> dict[str, Tensor]:
        """{name of a parameter of the plain layer: its value for a task}, in a context of that task.

        Raises:
            ValueError: no weights do the same.
            UnknownNameError: the task has no change of its own.
        """


class SharedChange:
    """Base of modules that several such layers read; a merged network has none."""


class MergeableAdapter(Adapter):
    """Base of adapters that change a network by such layers alone; merging leaves them out of its config."""


def mergeable_layers(network: nn.Module) -> dict[str, Mergeable]:
    """{path: layer} of all layers that can be merged."""
    return {path: item for path, item in network.named_modules() if isinstance(item, Mergeable)}
