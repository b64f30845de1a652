"""The base of adapters that freeze a backbone and add updates to some of its linear layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import ClassVar

from torch import nn
from torch.utils.hooks import RemovableHandle

from mtvision.core.task import Task
from mtvision.models.adapters.low_rank.delta import Delta
from mtvision.models.adapters.low_rank.linear import UpdatedLinear
from mtvision.models.adapters.mergeable import Mergeable, MergeableAdapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.task_passes import pass_per_task
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.layers.conditioned import is_conditioned
from mtvision.models.network import Network

Ranks = Mapping[str, int]
"""{glob of linear layers in the backbone: rank}; the first glob that matches counts."""


class LinearUpdates(MergeableAdapter):
    """Base of adapters that add a `Delta` to the results of linear layers.

    The rest of the backbone is frozen, and its norms keep their statistics.

    Args:
        shared: {glob of linear layers: rank} of the update of all tasks. A layer that `own` matches too has
            it with `both` or `side` alone; else nothing would read it.
        own: {glob of linear layers: rank} of an update of each task, in blocks. The backbone is then computed
            once up to the first such block and once per task from there.
        both: a task's result has the shared update too, where a layer has both.
        side: tasks leave the shared state for the last block of a stage and do not come back (MTLoRA). Then
            `own` concerns only these blocks.
        train: globs of the backbone's parameters that are trained as well, e.g. `*norm*` or `*.bias`.
        addition: where a layer has own updates, the shared state adds a normed sum of the tasks' results
            instead of a shared update (MTLoRA's `addition`). It needs `side`.

    Attributes:
        depend: updates of `shared` depend on the task, so that they lie in blocks.
        read: own updates read the shared one of their layer.

    Raises:
        ValueError: no layer is named, a glob matches none, or a rank is not positive.
    """

    depend: ClassVar[bool] = False
    read: ClassVar[bool] = False

    def __init__(
        self,
        *,
        shared: Ranks,
        own: Ranks,
        both: bool,
        side: bool,
        train: Sequence[str],
        addition: bool = False,
    ) -> None:
        self.shared, self.own = dict(shared), dict(own)
        self.both, self.side, self.train = both, side, tuple(train)
        self.addition = addition
        if addition and not (side and self.own):
            raise ValueError(f"{self.label}: addition=True needs side=True and layers in `own`.")
        if not self.shared and not self.own:
            raise ValueError(
                f"{self.label}: neither `shared` nor `own` names layers. Give globs, e.g. "
                "shared={'*.attn.qkv': 8}."
            )
        for glob, rank in (*self.shared.items(), *self.own.items()):
            if rank < 1:
                raise ValueError(f"{self.label}: rank {rank} for '{glob}'; expected 1 or more.")

    @property
    def label(self) -> str:
        """Name in messages."""
        return type(self).__name__

    @abstractmethod
    def update(self, path: str, layer: nn.Linear, rank: int, tasks: Sequence[str], *, own: bool) -> Delta:
        """A fresh update of a layer.

        Args:
            path: of the layer in the backbone.
            layer: frozen.
            rank: that a glob gives.
            tasks: names.
            own: of one task, not of all.
        """

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with updates."""
        names = [task.name for task in tasks]
        layers = {path: item for path, item in backbone.named_modules() if type(item) is nn.Linear}
        self._refuse_updated(backbone)
        inside = self._in_blocks(backbone, layers)
        shared = self.chosen(self.shared, inside if self.depend else layers, self.label)
        own = self.chosen(self.own, self._side_layers(backbone, layers) if self.side else inside, self.label)
        if self.addition or not (self.both or self.side or self.read):
            alone = {path: rank for path, rank in shared.items() if path not in own}
            if shared and not alone and not self.addition:
                raise ValueError(
                    f"{self.label}: all layers of `shared` have own updates, and tasks read these alone. "
                    "Leave `shared` out, or take both=True where there is one."
                )
            shared = alone
        self._freeze(backbone)
        made: dict[str, UpdatedLinear] = {}
        for path in [name for name in layers if name in shared or name in own]:
            layer = layers[path]
            common = self.update(path, layer, shared[path], names, own=False) if path in shared else None
            mine = {
                name: self.update(path, layer, own[path], names, own=True) for name in names if path in own
            }
            add = _sum_norm(layer) if self.addition and mine else None
            made[path] = UpdatedLinear(layer, common, mine, both=self.both, add=add).to(layer.weight)
            backbone.set_submodule(path, made[path])
        if is_conditioned(backbone):
            pass_per_task(backbone, names, side=self.side, user=self.label, stacked=self.addition)
        self._check_reached(backbone, made)
        return backbone

    def complete(self, network: Network) -> None:
        """Keep the statistics of the frozen backbone; refuse a decoder that reads one pyramid."""
        if network.backbone.task_passes is not None:
            refuse_shared_decoder(network, self.label)
        network.freeze(())

    def _refuse_updated(self, backbone: Backbone) -> None:
        """Refuse layers that an adapter before has changed; they are no plain linear layers any more."""
        changed = [path for path, item in backbone.named_modules() if isinstance(item, Mergeable)]
        for glob in (*self.shared, *self.own):
            taken = [path for path in changed if fnmatchcase(path, glob)]
            if taken:
                raise ValueError(
                    f"{self.label}: '{glob}' matches {taken[0]}, which an adapter before changes already. "
                    "Name each layer in one adapter."
                )

    @staticmethod
    def _in_blocks(backbone: Backbone, layers: Mapping[str, nn.Linear]) -> dict[str, nn.Linear]:
        """Layers that a pass of one task runs; all without blocks, which `pass_per_task` refuses."""
        try:
            within = tuple(f"{name}." for name in backbone.block_names())
        except NotImplementedError:
            return dict(layers)
        return {path: item for path, item in layers.items() if path.startswith(within)}

    def _side_layers(self, backbone: Backbone, layers: Mapping[str, nn.Linear]) -> dict[str, nn.Linear]:
        """Layers in the blocks for which tasks leave the shared state."""
        if not backbone.exits:
            raise ValueError(f"{self.label}: side=True needs a backbone with blocks; see docs/models.md.")
        names = backbone.block_names()
        last = [f"{names[position - 1]}." for position in backbone.exits if position]
        return {path: item for path, item in layers.items() if path.startswith(tuple(last))}

    @staticmethod
    def chosen(ranks: Ranks, layers: Mapping[str, nn.Linear], user: str) -> dict[str, int]:
        """{path: rank} of the layers that globs match; the first glob counts.

        Raises:
            ValueError: a glob matches none, or another one before it matches all of its layers.
        """
        first = {
            path: next(glob for glob in ranks if fnmatchcase(path, glob))
            for path in layers
            if any(fnmatchcase(path, glob) for glob in ranks)
        }
        for glob in ranks:
            matched = [path for path in layers if fnmatchcase(path, glob)]
            if not matched:
                raise ValueError(_no_layer(user, glob, list(layers)))
            if glob not in first.values():
                earlier = " and ".join(f"'{item}'" for item in dict.fromkeys(first[path] for path in matched))
                raise ValueError(
                    f"{user}: '{glob}' counts for no layer, because {earlier} before it matches all of "
                    "its layers first. Put it in front."
                )
        return {path: ranks[glob] for path, glob in first.items()}

    def _freeze(self, backbone: Backbone) -> None:
        named = dict(backbone.named_parameters())
        for glob in self.train:
            if not any(fnmatchcase(name, glob) for name in named):
                raise ValueError(_no_layer(f"{self.label}.train", glob, list(named)))
        for name, item in named.items():
            item.requires_grad_(any(fnmatchcase(name, glob) for glob in self.train))

    def _check_reached(self, backbone: Backbone, made: Mapping[str, UpdatedLinear]) -> None:
        """Refuse layers whose weight is read without calling them: their updates would do nothing."""
        called: set[nn.Module] = set()

        def note(module: nn.Module, *_: object) -> None:
            called.add(module)

        handles: list[RemovableHandle] = [item.register_forward_hook(note) for item in made.values()]
        try:
            backbone.measure()
        finally:
            for handle in handles:
                handle.remove()
        idle = [path for path, item in made.items() if item not in called]
        if idle:
            raise ValueError(
                f"{self.label}: {len(idle)} layers are not called by the backbone ({', '.join(idle[:3])}), "
                "which reads their weights itself. Leave them out."
            )


def _sum_norm(layer: nn.Linear) -> nn.LayerNorm:
    """Norm of a sum of results; its gain starts at 0, so that a fresh one adds nothing."""
    norm = nn.LayerNorm(layer.out_features)
    nn.init.zeros_(norm.weight)
    return norm


def updated_layers(network: nn.Module) -> dict[str, UpdatedLinear]:
    """{path: layer} of all layers with updates."""
    return {path: item for path, item in network.named_modules() if isinstance(item, UpdatedLinear)}


def _no_layer(user: str, glob: str, names: Collection[str]) -> str:
    if not names:
        remedy = "Choose a ViT, a Swin or a ConvNeXt (docs/encoders.md)."
        return f"{user}: the backbone has no linear layer. {remedy}"
    near = get_close_matches(glob, names, n=2, cutoff=0.3)
    known = " and ".join(near or list(names)[:2])
    return f"{user}: '{glob}' matches nothing in the backbone. There are, for example, {known}."
