"""The base of adapters that freeze a backbone and change its weights per task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.task import Task
from mtvision.models.adapters.mergeable import MergeableAdapter
from mtvision.models.adapters.weight_deltas.layers import TUNED, Tuned
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.task_passes import pass_per_task
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.network import Network

Changes = Mapping[str, Mapping[str, nn.Module]]
"""{task: {name of a parameter: its change}}."""


class WeightDeltas(MergeableAdapter):
    """Base of adapters that add to the weights of layers inside a frozen backbone's blocks.

    The backbone is computed once up to the first block with such a layer, and once per task from there.

    Attributes:
        base_task: a task whose pass comes first in every forward pass; None = no such task.
    """

    base_task: str | None = None

    @property
    def label(self) -> str:
        """Name in messages."""
        return type(self).__name__

    @abstractmethod
    def changes(self, path: str, layer: nn.Module, tasks: Sequence[str]) -> Changes:
        """Fresh changes of one layer; empty where it stays as it is.

        Args:
            path: of the layer in the backbone.
            layer: frozen.
            tasks: names.
        """

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with changes."""
        names = [task.name for task in tasks]
        backbone.requires_grad_(False)
        found = self.layers(backbone)
        if not found:
            raise ValueError(
                f"{self.label}: the backbone has no blocks with layers that can be changed. Choose another "
                "backbone (docs/models.md)."
            )
        for path, layer in found.items():
            made = self.changes(path, layer, names)
            if made:
                kind = TUNED[type(layer)]
                backbone.set_submodule(path, kind(layer, made, tuple(names)).to(next(layer.parameters())))
        if any(isinstance(item, Tuned) for item in backbone.modules()):
            pass_per_task(backbone, names, side=False, user=self.label, base=self.base_task)
        backbone.measure()
        return backbone

    def complete(self, network: Network) -> None:
        """Keep the statistics of the frozen backbone; refuse a decoder that reads one pyramid."""
        if network.backbone.task_passes is not None:
            refuse_shared_decoder(network, self.label)
        network.freeze(())

    def layers(self, backbone: Backbone) -> dict[str, nn.Module]:
        """{path: layer} of what can be changed inside the blocks."""
        within = tuple(f"{name}." for name in backbone.block_names())
        return {
            path: item
            for path, item in backbone.named_modules()
            if type(item) in TUNED and path.startswith(within) and list(item.parameters(recurse=False))
        }

    def check_tasks(self, given: Sequence[str], tasks: Sequence[str], option: str) -> None:
        """Refuse names of tasks that the run does not have.

        Raises:
            UnknownNameError: there is no such task.
        """
        for name in given:
            if name not in tasks:
                raise UnknownNameError(f"task in {self.label}.{option}", name, list(tasks))


def chosen(path: str, globs: Sequence[str] | None) -> bool:
    """Whether a path matches one of the globs; None = all."""
    return globs is None or any(fnmatchcase(path, glob) for glob in globs)
