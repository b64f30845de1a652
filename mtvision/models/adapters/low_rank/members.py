"""The members of the low-rank family, as a config names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Positive, Share
from mtvision.models.adapters.low_rank.adapter import LinearUpdates
from mtvision.models.adapters.low_rank.delta import Bottleneck, Delta, Matrices, Skills, check_rank
from mtvision.models.adapters.low_rank.spectrum import SpectrumWarp
from mtvision.models.backbones.backbone import Backbone


@ADAPTERS.register_module()
class LowRank(LinearUpdates):
    """LoRA (Hu et al., ICLR 2022), and MTLoRA (Agiza et al., CVPR 2024) with `own` and `side=True`.

    In MTLoRA all blocks have task-agnostic updates, and the last block of every stage has task-specific ones
    too. A task's result there is the frozen result of the shared state plus its own update.

    Args:
        shared: {glob of linear layers: rank} of the update of all tasks, e.g. `{"*.attn.qkv": 8}`. A layer
            that `own` matches too has it with `both` or `side` alone.
        own: {glob of linear layers: rank} of an update of each task.
        scale: factor of updates; LoRA's alpha/rank, MTLoRA's scale (not divided by the rank).
        dropout: of the inputs of updates.
        both: a task's result has the shared update too (MTLoRA's `matrixv2`).
        side: tasks leave the shared state for the last block of a stage and do not come back (MTLoRA).
        train: globs of the backbone's parameters that are trained as well.
        addition: where a layer has own updates, the shared state adds a normed sum of the tasks' results
            instead of a shared update (MTLoRA's `addition`). It needs `side`.

    Raises:
        ValueError: no layer is named, a glob matches none, or a rank is not positive.
    """

    def __init__(
        self,
        *,
        shared: Mapping[str, int] | None = None,
        own: Mapping[str, int] | None = None,
        scale: float = 1.0,
        dropout: Share = 0.0,
        both: bool = False,
        side: bool = False,
        train: Sequence[str] = (),
        addition: bool = False,
    ) -> None:
        super().__init__(
            shared=shared or {}, own=own or {}, both=both, side=side, train=train, addition=addition
        )
        self.scale, self.dropout = scale, dropout

    def update(self, path: str, layer: nn.Linear, rank: int, tasks: Sequence[str], *, own: bool) -> Delta:
        """Two matrices."""
        del tasks, own
        check_rank(self.label, path, layer, rank)
        return Matrices(layer.in_features, layer.out_features, rank, self.scale, self.dropout)


@ADAPTERS.register_module()
class DiTASK(LinearUpdates):
    """DiTASK (Mantri et al., CVPR 2025): smooth maps over the sorted singular values of frozen weights.

    The map moves the index axis of the singular values, as in the released code. It has `cells - 1` numbers
    per layer. The rank of a glob is the number of cells.

    Args:
        shared: {glob of linear layers: cells} of the map of all tasks.
        own: {glob of linear layers: cells} of a map of each task.
        parts: {glob of linear layers: equal parts of the output}, each with singular values of its own.
        side: see `LowRank`.
        train: globs of the backbone's parameters that are trained as well.

    Raises:
        ValueError: no layer is named, a glob matches none, or there are fewer than two cells.
    """

    def __init__(
        self,
        *,
        shared: Mapping[str, int] | None = None,
        own: Mapping[str, int] | None = None,
        parts: Mapping[str, Positive] | None = None,
        side: bool = False,
        train: Sequence[str] = (),
    ) -> None:
        super().__init__(shared=shared or {}, own=own or {}, both=False, side=side, train=train)
        self.parts = {"*.qkv": 3} if parts is None else dict(parts)
        self.given_parts = tuple(parts or ())

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with maps of spectra."""
        linear = {path: item for path, item in backbone.named_modules() if type(item) is nn.Linear}
        self.chosen(dict.fromkeys(self.given_parts, 1), linear, f"{self.label}.parts")
        return super().apply(backbone, tasks)

    def update(self, path: str, layer: nn.Linear, rank: int, tasks: Sequence[str], *, own: bool) -> Delta:
        """A map of the spectrum."""
        del tasks, own
        parts = next((count for glob, count in self.parts.items() if fnmatchcase(path, glob)), 1)
        if rank < 2 or layer.out_features % parts:
            raise ValueError(
                f"DiTASK: {path} with {rank} cells and {parts} parts; give two cells or more, and parts that "
                f"divide its {layer.out_features} outputs."
            )
        return SpectrumWarp(rank, parts)


@ADAPTERS.register_module()
class Houlsby(LinearUpdates):
    """Bottleneck adapters (Houlsby et al., ICML 2019) behind the layers that end attention and MLP.

    Args:
        shared: {glob of linear layers: width of the bottleneck} of the adapter of all tasks.
        own: {glob of linear layers: width} of an adapter of each task.
        side: see `LowRank`.
        train: globs of the backbone's parameters that are trained as well.

    Raises:
        ValueError: a glob matches no layer, or a width is not positive.
    """

    def __init__(
        self,
        *,
        shared: Mapping[str, int] | None = None,
        own: Mapping[str, int] | None = None,
        side: bool = False,
        train: Sequence[str] = ("*norm*",),
    ) -> None:
        if shared is None and own is None:
            shared = {"*.attn.proj": 64, "*.mlp.fc2": 64}
        super().__init__(shared=shared or {}, own=own or {}, both=False, side=side, train=train)

    def update(self, path: str, layer: nn.Linear, rank: int, tasks: Sequence[str], *, own: bool) -> Delta:
        """A bottleneck."""
        del path, tasks, own
        return Bottleneck(layer.out_features, rank)


@ADAPTERS.register_module()
class PolySkills(LinearUpdates):
    """C-Poly (Wang et al., ICLR 2024): common low-rank skills, a learned assignment, own updates.

    A task's update is its weighted sum of the common skills plus its own one.

    Args:
        shared: {glob of linear layers: rank} of a common skill.
        own: {glob of linear layers: rank} of the skill of each task.
        skills: common skills per layer.
        scale: factor of updates.
        train: globs of the backbone's parameters that are trained as well.

    Raises:
        ValueError: no layer is named, a glob matches none, or a rank is not positive.
    """

    depend = True

    def __init__(
        self,
        *,
        shared: Mapping[str, int],
        own: Mapping[str, int] | None = None,
        skills: Positive = 3,
        scale: float = 1.0,
        train: Sequence[str] = (),
    ) -> None:
        super().__init__(shared=shared, own=own or {}, both=True, side=False, train=train)
        self.skills, self.scale = skills, scale

    def update(self, path: str, layer: nn.Linear, rank: int, tasks: Sequence[str], *, own: bool) -> Delta:
        """Two matrices for a task, skills for all."""
        check_rank(self.label, path, layer, rank)
        inputs, outputs = layer.in_features, layer.out_features
        if own:
            return Matrices(inputs, outputs, rank, self.scale, 0.0)
        return Skills(inputs, outputs, rank, self.skills, tasks, self.scale)
