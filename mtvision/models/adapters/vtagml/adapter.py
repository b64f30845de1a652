"""The adapter of VTAGML: which blocks of a Swin depend on the task, and the side stream."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.vtagml.layers import (
    Bottleneck,
    StreamedBlock,
    StreamedMerging,
    TaskAttention,
    TaskScaledNorm,
)
from mtvision.models.adapters.vtagml.similarities import TaskTable, measure_gradients
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.task_passes import pass_per_task
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.network import Network


class StreamedBackbone(Backbone):
    """A Swin with a side stream: the coarsest level is the stream behind a norm, others are the Swin's.

    Args:
        inner: the Swin; its blocks and mergings become streamed ones.
        table: embeddings of tasks.
        tasks: names.
    """

    def __init__(self, inner: Backbone, table: TaskTable, tasks: Sequence[str]) -> None:
        super().__init__()
        widths = {block.name: (block.module, block.out_channels) for block in inner.blocks}
        self.channels, self.strides, self.exits = inner.channels, inner.strides, inner.exits
        self.size_multiple = inner.size_multiple
        for path, (module, width) in widths.items():
            if isinstance(module, PatchMerging):
                inner.set_submodule(path, StreamedMerging(module, copy.deepcopy(module).requires_grad_()))
            else:
                step = Bottleneck(width, table, tasks)
                inner.set_submodule(path, StreamedBlock(inner.get_submodule(path), step))
        self.inner = inner
        self.norm = nn.LayerNorm(self.channels[-1])

    def stem(self, image: Tensor) -> Tensor:
        """The Swin's state and an empty stream."""
        state = self.inner.stem(image)
        return torch.cat([state, torch.zeros_like(state)], dim=-1)

    def block_names(self) -> list[str]:
        """Those of the Swin."""
        return [f"inner.{name}" for name in self.inner.block_names()]

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """The Swin's map, at the coarsest level the normed stream."""
        x, stream = state.chunk(2, dim=-1)
        if level == len(self.exits) - 1:
            x = self.norm(stream)
        return self.inner.to_map(x, level, size)

    def state_shape(self, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of the Swin's state."""
        return self.inner.state_shape(state.chunk(2, dim=-1)[0], size)


@ADAPTERS.register_module()
class VTAGML(Adapter):
    """Vision transformer adapters (Bhattacharjee et al., ICCV 2023) on a Swin of timm.

    In conditioned blocks, attention gets a bias of the task (TAA) and norms a gain of the task (TSN). A side
    stream of bottlenecks runs along all blocks, and decoders read it at the coarsest level.

    Args:
        blocks: names of the conditioned blocks; by default the last stage's.
        norms: conditioned blocks have TSN.
        stream: there is a side stream.
        embedding: numbers per task. The released code has 343, window area times window side.
        freeze: train only the adapters, the patch embedding and whole conditioned blocks, as released.
        unscaled: scores of attention are not divided by the root of a head's width, in all blocks. The
            released script for NYUD-v2 trains so (its `qk_scale=True` is a factor of 1).
        similarities: TROA: embeddings of tasks are mixed by how much their gradients agree. The released
            code has none; this form is ours.

    Raises:
        TypeError: the backbone is no Swin of timm.
        UnknownNameError: no such block.
        ValueError: another VTAGML stands before it, or nothing is left that depends on the task.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] | None = None,
        norms: bool = True,
        stream: bool = True,
        embedding: Positive = 343,
        freeze: bool = False,
        unscaled: bool = False,
        similarities: bool = False,
    ) -> None:
        self.blocks = None if blocks is None else tuple(blocks)
        self.norms, self.stream, self.size, self.freeze = norms, stream, embedding, freeze
        self.unscaled, self.similarities = unscaled, similarities

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, or one around it that has the stream."""
        names = [task.name for task in tasks]
        known = {path: item for path, item in backbone.named_modules() if type(item) is SwinTransformerBlock}
        chosen = self._chosen(backbone, known)
        if self.freeze:
            self.train = ("*patch_embed.*", *(f"{path}.*" for path in chosen))
            for path, item in backbone.named_parameters():
                item.requires_grad_(any(fnmatchcase(path, glob) for glob in self.train))
        table = TaskTable(len(names), self.size, similarities=self.similarities)
        if self.unscaled:
            for each in known.values():
                attention: Any = each.attn  # timm ships no types
                attention.scale, attention.fused_attn = 1.0, False  # the fused kernel always divides
        for path in chosen:
            block: Any = known[path]
            block.attn = TaskAttention(block.attn, table, names)
            if self.norms:
                block.norm1 = TaskScaledNorm(block.norm1, table, names)
                block.norm2 = TaskScaledNorm(block.norm2, table, names)
        if self.stream:
            backbone = StreamedBackbone(backbone, table, names)
        backbone.add_module("task_type_embeddings", table.to(next(backbone.parameters())))
        if table.similarities is not None:
            measure_gradients(backbone, table.similarities, names)
        backbone.to(table.weight)
        pass_per_task(backbone, names, side=False, user="VTAGML")
        backbone.measure()
        return backbone

    def complete(self, network: Network) -> None:
        """Refuse a decoder that reads one pyramid of all tasks; keep frozen parts in evaluation mode."""
        refuse_shared_decoder(network, type(self).__name__)
        network.freeze(())

    def _chosen(self, backbone: Backbone, known: Mapping[str, nn.Module]) -> list[str]:
        if not known:
            raise TypeError(
                f"VTAGML: {type(backbone).__name__} has no blocks of timm's Swin. Use it with a swin_* model."
            )
        if any(isinstance(item, TaskTable) for item in backbone.modules()):
            raise ValueError("VTAGML: the backbone has a VTAGML already. Name all blocks in one adapter.")
        if self.blocks is None:
            stage = list(known)[-1].rpartition(".")[0]
            return [path for path in known if path.startswith(f"{stage}.")]
        for path in self.blocks:
            if path not in known:
                raise UnknownNameError("block in VTAGML.blocks", path, list(known))
        if not self.blocks and not self.stream:
            raise ValueError(
                "VTAGML: blocks=[] and stream=False leave nothing that depends on the task. Name blocks such "
                f"as '{list(known)[-1]}', or leave `blocks` out."
            )
        return list(dict.fromkeys(self.blocks))
