"""`MixtureOfExperts`: experts in the place of a transformer's MLPs, as in M³ViT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import torch
from timm.layers.mlp import Mlp
from torch import nn

from mtvision.core.naming import look_up
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Count, Factor, Positive, Rate, Share
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.mergeable import Mergeable
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.task_passes import pass_per_task
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.layers.conditioned import is_conditioned
from mtvision.models.layers.experts.mlp import MixtureMLP, orthogonal_sum, weighted_sum
from mtvision.models.layers.experts.router import (
    ConditionedRouter,
    Router,
    SharedRouter,
    TaskRouter,
    exclusive_mask,
)
from mtvision.models.network import Network

ROUTERS: Mapping[str, Callable[..., Router]] = {
    "task": TaskRouter,
    "conditioned": ConditionedRouter,
    "shared": SharedRouter,
}
COMBINE = {"sum": weighted_sum, "orthogonal": orthogonal_sum}


@ADAPTERS.register_module()
class MixtureOfExperts(Adapter):
    """Replaces MLPs of a transformer by experts (M³ViT, Fan et al., NeurIPS 2022, whose values are defaults).

    A router sends every token to `top_k` experts. Where routing depends on the task, the backbone is computed
    once up to the first such block and once per task from there.

    Args:
        experts: per MLP.
        top_k: experts per token.
        ratio: inner width of an expert over the features of a token.
        router: `task` (a gate per task), `conditioned` (one gate that reads an embedding of the task),
            `shared` (one gate).
        noise: standard deviation times the number of experts of what training adds to the scores.
        renormalise: divide the weights of the chosen experts by their sum.
        combine: `sum`, or `orthogonal` (MOORE's Gram-Schmidt).
        restricted: share of the experts that not all tasks may use (MMoEEx).
        excluded: a restricted expert serves all tasks but one; by default it serves one task alone.
        mask_seed: of the choice of restricted experts.
        balance: weight of the loss cv²(importance) + cv²(load).
        z: weight of the squared log-sum-exp of the scores.
        mutual_information: weight of Mod-Squad's mutual information of tasks and experts.
        blocks: globs of the MLPs to replace; by default every second one, beginning with the second.
        copy: experts start as copies of the MLP they replace, whose inner width they then have.

    Raises:
        ValueError: `top_k` exceeds the experts that a task may use, a glob matches no MLP, or tasks cannot
            have passes of their own.
    """

    def __init__(
        self,
        *,
        experts: Positive = 16,
        top_k: Positive = 4,
        ratio: Rate = 1.0,
        router: Literal["task", "conditioned", "shared"] = "task",
        noise: Factor = 0.0,
        renormalise: bool = False,
        combine: Literal["sum", "orthogonal"] = "sum",
        restricted: Share = 0.0,
        excluded: bool = False,
        mask_seed: Count = 0,
        balance: Factor = 0.01,
        z: Factor = 0.0,
        mutual_information: Factor = 0.0,
        blocks: Sequence[str] | None = None,
        copy: bool = False,
    ) -> None:
        look_up("router in MixtureOfExperts.router", router, ROUTERS)
        look_up("way in MixtureOfExperts.combine", combine, COMBINE)
        if not 1 <= top_k <= experts:
            raise ValueError(
                f"MixtureOfExperts: top_k={top_k} of {experts} experts; give 1 or more, at most {experts}."
            )
        if excluded and not restricted:
            raise ValueError(
                "MixtureOfExperts: excluded=True with restricted=0, so no expert is restricted. Give "
                "restricted a share such as 0.5."
            )
        if mutual_information and router == "shared":
            raise ValueError(
                f"MixtureOfExperts: mutual_information={mutual_information} with router='shared', which "
                "routes all tasks alike. Use router='task' or 'conditioned'."
            )
        self.experts, self.top_k, self.ratio = experts, top_k, ratio
        self.router, self.noise, self.renormalise = router, noise, renormalise
        self.combine, self.restricted, self.excluded = combine, restricted, excluded
        self.mask_seed, self.copy = mask_seed, copy
        self.losses = {"balance": balance, "z": z, "mutual": mutual_information}
        self.blocks = None if blocks is None else tuple(blocks)

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone with experts."""
        names = [task.name for task in tasks]
        found = {path: item for path, item in backbone.named_modules() if type(item) is Mlp}
        for path in self._chosen(found):
            backbone.set_submodule(path, self._mixture(path, found[path], names))
        if is_conditioned(backbone):
            pass_per_task(backbone, names, side=False, user="MixtureOfExperts")
        backbone.measure()
        return backbone

    def complete(self, network: Network) -> None:
        """Refuse a decoder that reads one pyramid of all tasks."""
        if network.backbone.task_passes is not None:
            refuse_shared_decoder(network, type(self).__name__)

    def _chosen(self, found: dict[str, Mlp]) -> list[str]:
        chosen = list(found)[1::2]
        if self.blocks is not None:
            for glob in self.blocks:
                if not any(fnmatchcase(path, glob) for path in found):
                    there = f"has {', '.join(list(found)[:3])}, …" if found else "has no MLP of timm"
                    raise ValueError(f"MixtureOfExperts: '{glob}' matches no MLP; the backbone {there}.")
            chosen = [path for path in found if any(fnmatchcase(path, glob) for glob in self.blocks)]
        if not chosen:
            why = "and blocks=[] names none" if self.blocks is not None else "so there is nothing to replace"
            raise ValueError(
                f"MixtureOfExperts: the backbone has {len(found)} MLPs of timm, {why}. Use a ViT or a Swin "
                "with two blocks or more, and name MLPs such as blocks=['*.1.mlp']."
            )
        return chosen

    def _mixture(self, path: str, mlp: Mlp, tasks: Sequence[str]) -> MixtureMLP:
        first, second = mlp.fc1, mlp.fc2
        if not isinstance(first, nn.Linear) or not isinstance(second, nn.Linear) or first.bias is None:
            raise ValueError(f"MixtureOfExperts: {path} is no MLP of two linear layers with biases.")
        features = first.in_features
        hidden = first.out_features if self.copy else round(self.ratio * features)
        if hidden < 1:
            raise ValueError(
                f"MixtureOfExperts: ratio={self.ratio} of {features} features leaves experts no inner width. "
                f"Give at least {1 / features:g}."
            )
        if any(isinstance(item, Mergeable) for item in mlp.modules()):
            raise ValueError(
                f"MixtureOfExperts: {path} has layers that an adapter before changes, and experts would take "
                "their place. Put MixtureOfExperts first."
            )
        router = ROUTERS[self.router](
            features,
            self.experts,
            self.top_k,
            tasks,
            noise=self.noise,
            renormalise=self.renormalise,
            allowed=self._mask(len(tasks)),
        )
        mixture = MixtureMLP(router, features, hidden, COMBINE[self.combine], **self.losses)
        if self.copy:
            mixture.experts.copy_mlp(first, second)
        return mixture.to(first.weight)

    def _mask(self, tasks: int) -> torch.Tensor | None:
        if not self.restricted:
            return None
        with torch.device("cpu"):
            allowed = exclusive_mask(
                tasks, self.experts, self.restricted, excluded=self.excluded, seed=self.mask_seed
            )
        fewest = int(allowed.sum(dim=1).min())
        if fewest < self.top_k:
            raise ValueError(
                f"MixtureOfExperts: restricted={self.restricted} leaves a task {fewest} of {self.experts} "
                f"experts, fewer than top_k={self.top_k}. Restrict fewer, or take more experts."
            )
        return allowed
