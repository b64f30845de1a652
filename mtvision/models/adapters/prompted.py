"""A backbone with one learnable token per task: TaskPrompter (Ye and Xu, ICLR 2023)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mtvision.core.pyramid import size_of
from mtvision.models.backbones.backbone import Backbone, Shapes
from mtvision.models.computed_again import computed_again
from mtvision.models.declarations import Channels, Declaration
from mtvision.models.layers import resize
from mtvision.models.layers.prompts import PromptLogits, PromptPyramid


class PromptUnit(nn.Module):
    """A block of a prompted backbone; its state is (B, T + h·w, C), prompts first."""

    @abstractmethod
    def read(self, state: Tensor, logits: PromptLogits | None) -> tuple[Tensor, PromptLogits]:
        """The state after the block, and the logits that a level read here gets.

        Args:
            state: before the block.
            logits: of the unit before, where that was read.
        """


class PromptedBackbone(Backbone):
    """Base of backbones with prompts: the given one, whose blocks were replaced by `PromptUnit`s.

    Args:
        backbone: stem, blocks and norms; its blocks are `PromptUnit`s already.
        prompts: names, in the order of the weights.
        image_size: (H, W) that the weights are bound to, after `image_scale`.
        image_scale: images are resized by this factor first.

    Attributes:
        inner: the given backbone.
        task_prompts: (T, channels of the first state), learnable.
        reads: numbers of blocks that have run where logits are taken.
    """

    reads: frozenset[int] = frozenset()

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[str],
        width: int,
        image_size: tuple[int, int],
        image_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.inner, self.prompts = backbone, tuple(prompts)
        self.image_size, self.image_scale = image_size, image_scale
        self.grad_checkpointing = backbone.grad_checkpointing
        self.size_multiple = backbone.size_multiple if image_scale == 1 else 1
        self.task_prompts = nn.Parameter(torch.empty(len(self.prompts), width))
        nn.init.trunc_normal_(self.task_prompts, mean=1.0, std=1.0)

    def declaration(self) -> Declaration:
        """Prompts are as wide as the tokens that they join."""
        return Declaration(
            tensors={"task_prompts": {1: Channels(self.task_prompts.shape[1])}},
            cannot_branch="it gives its decoder more than maps (TaskPrompts), which branches would lose",
        )

    def stem(self, image: Tensor) -> Tensor:
        """Prompts and patches, (B, T + h·w, C).

        Raises:
            ValueError: the image has another size than the weights are bound to.
        """
        tokens = self.first_tokens(self._fitted(image))
        prompts = self.task_prompts.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat([prompts, tokens], dim=1)

    @abstractmethod
    def first_tokens(self, image: Tensor) -> Tensor:
        """Patches (B, h·w, C) of an image of the right size."""

    def block_names(self) -> list[str]:
        """Paths of the blocks."""
        return [f"inner.{name}" for name in self.inner.block_names()]

    def trial_size(self) -> tuple[int, int]:
        """(H, W) of the only images that this backbone takes."""
        height, width = (round(side / self.image_scale) for side in self.image_size)
        return height, width

    def measure(self, size: tuple[int, int] | None = None) -> Shapes:
        """Channels and strides, at the only size there is."""
        del size
        return super().measure(self.trial_size())

    def forward(self, image: Tensor) -> PromptPyramid:
        """Pyramid of an image batch (B, 3, H, W), with the logits of each level."""
        size = size_of(image)
        state, logits = self.stem(image), None
        maps: dict[int, Tensor] = {}
        found: dict[int, PromptLogits] = {}
        for position, module in enumerate(self._modules_of(self.block_names()), start=1):
            if position in self.reads:
                state, logits = self._run(cast(PromptUnit, module), state, logits)
            else:
                state = self.run_block(module, state)
            for level in (
                level for level, at in enumerate(self.exits) if at == position and logits is not None
            ):
                maps[level], found[level] = self.to_map(state, level, size), cast(PromptLogits, logits)
        levels = range(len(self.exits))
        return PromptPyramid(
            tuple(maps[level].view_as(maps[level]) for level in levels),
            self.strides,
            tuple(found[level] for level in levels),
            self.prompts,
        )

    def _run(
        self, module: PromptUnit, state: Tensor, logits: PromptLogits | None
    ) -> tuple[Tensor, PromptLogits]:
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            result: tuple[Tensor, PromptLogits] = computed_again(module.read, module, state, logits)
            return result
        return module.read(state, logits)

    def _fitted(self, image: Tensor) -> Tensor:
        given = size_of(image)
        if self.image_scale == 1:
            image = self.inner.pad(image)
        else:
            height, width = (round(side * self.image_scale) for side in given)
            image = resize(image, (height, width))
        if tuple(image.shape[-2:]) != self.image_size:
            height, width = (round(side / self.image_scale) for side in self.image_size)
            raise ValueError(
                f"TaskPrompts: the prompts' weights belong to images of {height}x{width}, got "
                f"{given[0]}x{given[1]}. Crop or pad images to that size (transforms), or train with "
                f"img_size=({given[0]}, {given[1]}) in the backbone's config."
            )
        return image


def updated(drop: Any, count: int, state: Tensor, change: Tensor) -> Tensor:
    """`state + change`, where stochastic depth drops the change of the first `count` tokens on its own."""
    if isinstance(drop, nn.Identity) or not drop.training:
        return state + change
    return state + torch.cat([drop(change[:, :count]), drop(change[:, count:])], dim=1)


def new_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer as ViTs start it."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
