"""TADFormer's low-rank updates with a spatial filter of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Share
from mtvision.models.adapters.low_rank.adapter import LinearUpdates
from mtvision.models.adapters.low_rank.delta import Delta, Matrices, check_rank
from mtvision.models.adapters.low_rank.filters import DynamicFilter, Filtered, FixedFilter
from mtvision.models.adapters.token_grid import TokenGrid, token_grids
from mtvision.models.backbones.backbone import Backbone


@ADAPTERS.register_module()
class TADFormer(LinearUpdates):
    """TADFormer (Baek et al., CVPR 2025): all tasks share A and B, and filter what lies between them.

    A layer's update for a task is B·filter(A·x)·scale, with a depth-wise filter of the task. The prompts of
    the released network are not part of this adapter.

    Args:
        shared: {glob of linear layers: rank} of the update of all tasks.
        own: {glob of linear layers: side of the filter of each task}, odd; these layers are in `shared` too.
        dynamic: filters are made from the mean of their input, as the paper says. The released network has
            fixed ones, which is the default.
        scale: factor of updates, not divided by the rank.
        dropout: of the inputs of updates.
        side: see `LowRank`.
        train: globs of the backbone's parameters that are trained as well.

    Raises:
        ValueError: no layer is named, a glob matches none, a side is even, or a filter has no shared update.
    """

    read = True

    def __init__(
        self,
        *,
        shared: Mapping[str, int],
        own: Mapping[str, int],
        dynamic: bool = False,
        scale: float = 1.0,
        dropout: Share = 0.0,
        side: bool = False,
        train: Sequence[str] = (),
    ) -> None:
        super().__init__(shared=shared, own=own, both=False, side=side, train=train)
        self.dynamic, self.scale, self.dropout = dynamic, scale, dropout
        self._grids: dict[str, TokenGrid | None] = {}
        self._ranks: dict[str, int] = {}

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with updates."""
        linear = {path for path, item in backbone.named_modules() if type(item) is nn.Linear}
        within = tuple(f"{name}." for name in backbone.block_names())
        self._grids = token_grids(backbone, [path for path in linear if path.startswith(within)])
        self._ranks = {}
        return super().apply(backbone, tasks)

    def update(self, path: str, layer: nn.Linear, rank: int, tasks: Sequence[str], *, own: bool) -> Delta:
        """Two matrices for all tasks, a filter for one."""
        del tasks
        if not own:
            check_rank(self.label, path, layer, rank)
            self._ranks[path] = rank
            return Matrices(layer.in_features, layer.out_features, rank, self.scale, self.dropout)
        if path not in self._ranks or rank % 2 == 0:
            raise ValueError(
                f"TADFormer: {path} has a filter of side {rank} and "
                f"{'a' if path in self._ranks else 'no'} shared update. Give an odd side, and a rank in "
                "`shared` for the same layer."
            )
        made = (DynamicFilter if self.dynamic else FixedFilter)(self._ranks[path], rank)
        return Filtered(made, self._grids[path])
