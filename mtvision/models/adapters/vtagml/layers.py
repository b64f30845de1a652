"""VTAGML's modules, which an embedding of the task modulates; names are those of the released code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.adapters.vtagml.similarities import TaskTable
from mtvision.models.declarations import Declaration, Declares
from mtvision.models.layers.conditioned import TaskConditioned, current_task


class Embedded(TaskConditioned, Declares):
    """Base of modules that read the embedding of the current task.

    The embedding belongs to the backbone. Modules keep it outside their own parameters.
    """

    _source: tuple[TaskTable, tuple[str, ...]]

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim="task embeddings modulate the full width")

    def embedding(self) -> Tensor:
        """Of the current task, (E)."""
        table, tasks = self._source
        return table.of(tasks.index(current_task(tasks, type(self).__name__)))


class FiLM(nn.Module):
    """(1 + gamma) ⊙ x + beta, both from an embedding; a fresh one of `still` changes nothing.

    Args:
        embedding: E.
        features: last axis of x.
        still: the layer starts at 0 (ours), instead of at random.
    """

    def __init__(self, embedding: int, features: int, *, still: bool) -> None:
        super().__init__()
        self.gb_weights = nn.Linear(embedding, 2 * features)
        nn.init.zeros_(self.gb_weights.bias)
        if still:
            nn.init.zeros_(self.gb_weights.weight)

    def forward(self, embedding: Tensor, x: Tensor) -> Tensor:
        """The modulated (..., C)."""
        gamma, beta = self.gb_weights(embedding).chunk(2)
        modulated: Tensor = (1 + gamma) * x + beta
        return modulated


class TaskAttention(WindowAttention, Embedded):
    """TAA: timm's attention in windows with a bias of the task among the pixels of one row of a window.

    Args:
        attention: whose parameters it takes over.
        table: embeddings of tasks.
        tasks: names.
    """

    def __init__(self, attention: WindowAttention, table: TaskTable, tasks: Sequence[str]) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(attention.__dict__)
        self._source = (table, tuple(tasks))
        rows, columns = self.window_size
        self.random_weight_matrix = nn.Parameter(torch.zeros(rows * columns, columns))
        self.taa_attn = FiLM(table.embedding_dim, columns, still=True)

    def _get_rel_pos_bias(self) -> Tensor:
        """Bias of positions and of the task, (1, heads, N, N)."""
        positions: Tensor = super()._get_rel_pos_bias()
        rows = self.taa_attn(self.embedding(), self.random_weight_matrix).chunk(self.window_size[0])
        rows_only: Tensor = torch.block_diag(*rows)  # type: ignore[no-untyped-call]
        return positions + rows_only.to(positions.dtype)


class TaskScaledNorm(nn.Module, Embedded):
    """TSN: a layer norm whose gain is modulated by the task; its shift is not.

    Args:
        norm: whose parameters it takes over.
        table: embeddings of tasks.
        tasks: names.
    """

    normalized_shape: tuple[int, ...]
    eps: float
    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.LayerNorm, table: TaskTable, tasks: Sequence[str]) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(norm.__dict__)
        self._source = (table, tuple(tasks))
        self.ln_weight_modulation = FiLM(table.embedding_dim, norm.normalized_shape[-1], still=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        gain = self.ln_weight_modulation(self.embedding(), self.weight)
        return F.layer_norm(x, self.normalized_shape, gain.to(self.weight.dtype), self.bias, self.eps)


class Bottleneck(nn.Module, Embedded):
    """Up(Down(FiLM(x; Linear(embedding)))) without non-linearity or residual.

    Args:
        features: of x.
        table: embeddings of tasks.
        tasks: names.
    """

    def __init__(self, features: int, table: TaskTable, tasks: Sequence[str]) -> None:
        super().__init__()
        self._source = (table, tuple(tasks))
        size = table.embedding_dim
        self.emb_transf = nn.Linear(size, size)
        self.hidden_modulation = FiLM(size, features, still=False)
        self.down_proj_layer = nn.Linear(features, features // 3)
        self.up_proj_layer = nn.Linear(features // 3, features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        modulated = self.hidden_modulation(self.emb_transf(self.embedding()), x)
        result: Tensor = self.up_proj_layer(self.down_proj_layer(modulated))
        return result


class StreamedBlock(nn.Module):
    """A block, and a step of the side stream: states are (B, h, w, 2C), the block's in front.

    Args:
        block: of the backbone.
        bottleneck: reads the block's result plus the stream.
    """

    def __init__(self, block: nn.Module, bottleneck: nn.Module) -> None:
        super().__init__()
        self.block, self.bottleneck = block, bottleneck

    def forward(self, state: Tensor) -> Tensor:
        """Both states after the block."""
        x, stream = state.chunk(2, dim=-1)
        x = self.block(x)
        return torch.cat([x, self.bottleneck(x + stream).to(x.dtype)], dim=-1)


class StreamedMerging(nn.Module):
    """Patch merging of both states, each with its own weights.

    Args:
        merging: of the backbone.
        own: of the stream.
    """

    def __init__(self, merging: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.block, self.own = merging, own

    def forward(self, state: Tensor) -> Tensor:
        """Both states at half the size."""
        x, stream = state.chunk(2, dim=-1)
        return torch.cat([self.block(x), self.own(stream)], dim=-1)
