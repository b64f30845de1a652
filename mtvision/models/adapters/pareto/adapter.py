"""The adapter that gives the weights of a network one member per task."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from mtvision.core.registry import ADAPTERS
from mtvision.core.values import Positive
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.pareto.manifold import Manifold, use_statistics
from mtvision.models.adapters.pareto.members import add_members
from mtvision.models.network import Network
from mtvision.ops.batch_statistics import norms_of


@ADAPTERS.register_module()
class ParetoManifold(Adapter):
    """PaMaL (Dimitriadis, Frossard and Fleuret, ICML 2023): weights are mixtures by the user's preference.

    Train with `step=dict(type="ParetoStep")`. Then `network(image, context=Context(preference=...))` answers
    for a preference. Without one all tasks count alike.

    Args:
        members: `low_rank`, a common tensor and a small update per task (ours, for large backbones); `whole`,
            a tensor per task, as in the paper.
        rank: of low-rank members.
        parameters: globs of what gets members.
        points: steps on each ray of preferences that batch norms get statistics for.

    Raises:
        ValueError: a glob matches no parameter, or the network has a single task.
    """

    def __init__(
        self,
        *,
        members: Literal["low_rank", "whole"] = "low_rank",
        rank: Positive = 4,
        parameters: Sequence[str] = ("backbone.*", "decoder.*"),
        points: Positive = 10,
    ) -> None:
        self.members: Literal["low_rank", "whole"] = members
        self.rank, self.parameters, self.points = rank, tuple(parameters), points

    def complete(self, network: Network) -> None:
        """Replace parameters by members, and add the child `manifold`."""
        names = [name for name, item in network.named_parameters() if item.requires_grad]
        if len(network.task_names) < 2:
            raise ValueError("ParetoManifold: a single task has no trade-off; leave the adapter out.")
        for glob in self.parameters:
            if not any(fnmatchcase(name, glob) for name in names):
                raise ValueError(
                    f"ParetoManifold: '{glob}' matches no trainable parameter; one is called '{names[0]}'."
                )
        for name in names:
            if any(fnmatchcase(name, glob) for glob in self.parameters):
                path, _, own = name.rpartition(".")
                module = network.get_submodule(path)
                add_members(module, own, network.task_names, self.members, self.rank)
        channels = sum(norm.num_features for norm in norms_of(network))
        network.add_module("manifold", Manifold(network.task_names, self.points, channels))
        network.register_forward_pre_hook(use_statistics, with_kwargs=True)
