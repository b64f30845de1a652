"""The backbone contract: an image becomes a pyramid, in steps that other code may cut between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mtvision.core.context import current_context, use_context
from mtvision.core.naming import ReportedError
from mtvision.core.pyramid import Pyramid, ceil_div, size_of
from mtvision.core.shapes import RememberedShapes
from mtvision.models.backbones.task_passes import TaskPasses, remembering
from mtvision.models.computed_again import computed_again
from mtvision.models.declarations import Declaration, Declares
from mtvision.models.modes import evaluating


@dataclass(frozen=True)
class Block:
    """One cuttable unit of a backbone; calling it maps the state before it to the state after it.

    Args:
        name: path of the module inside the backbone, as in `backbone.get_submodule(name)`.
        in_channels: channels of the state it reads.
        out_channels: channels of the state it writes.
        stride: image pixels per position of the state it writes.
        module: what is called.
    """

    name: str
    in_channels: int
    out_channels: int
    stride: int
    module: Callable[[Tensor], Tensor] = field(repr=False)

    def __call__(self, state: Tensor) -> Tensor:
        """Run the unit."""
        return self.module(state)


@dataclass(frozen=True)
class Shapes:
    """Result of a dry run: (channels, stride) after the stem, after each block, and of each level."""

    stem: tuple[int, int]
    blocks: tuple[tuple[int, int], ...]
    levels: tuple[tuple[int, int], ...]


class UncutError(ReportedError, NotImplementedError):
    """A backbone is not cut into blocks, and something needs them."""


class Backbone(nn.Module, Declares):
    """Base of all backbones.

    A backbone is a stem, a list of blocks and some exits. For every backbone

        state = backbone.stem(image)
        for block in backbone.blocks: state = block(state)

    visits all states, and level i of the pyramid is `to_map(state, i, size)` of the state after
    `exits[i]` blocks. `forward` does exactly this, so a module that an adapter put in a block's place is
    used. States are opaque (NCHW, NHWC or tokens), maps are NCHW.

    Subclasses implement `stem`, `block_names`, `to_map`, set `exits`, and call `measure()` at the end of
    their constructor. One that cannot be cut overrides `levels` instead and leaves `exits` empty.

    Attributes:
        channels: channels of each level, fine to coarse.
        strides: image pixels per map pixel of each level.
        exits: number of blocks that have run when level i is read.
        size_multiple: `stem` pads the image below and on the right with zeros (the mean colour of a
            normalised image) to a multiple of this. Maps then cover the padded image; `Network` knows.
        grad_checkpointing: recompute blocks in the backward pass instead of storing their activations.
        task_passes: how an adapter lets the backbone differ between tasks; None = one pyramid for all.

    >>> import torch
    >>> class Pooled(Backbone):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1))
    ...         self.first, self.exits = nn.Conv2d(3, 8, 3, 2, 1), (1, 2)
    ...         self.measure()
    ...
    ...     def stem(self, image):
    ...         return self.first(image)
    ...
    ...     def block_names(self):
    ...         return ["body.0", "body.1"]
    ...
    ...     def to_map(self, state, level, size):
    ...         return state
    >>> backbone = Pooled()
    >>> backbone.channels, backbone.strides
    ((8, 8), (4, 8))
    >>> [tuple(item.shape) for item in backbone(torch.zeros(1, 3, 64, 64)).maps]
    [(1, 8, 16, 16), (1, 8, 8, 8)]
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    exits: tuple[int, ...] = ()
    size_multiple: int = 1
    grad_checkpointing: bool = False
    task_passes: TaskPasses | None = None

    def stem(self, image: Tensor) -> Tensor:
        """State before the first block, of an image batch (B, 3, H, W) of any size."""
        raise self._uncut()

    def block_names(self) -> list[str]:
        """Paths of the units in the order they run."""
        raise self._uncut()

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """Map (B, C, h, w) of level `level` from its state; `size` is the (H, W) of the image."""
        raise self._uncut()

    def state_shape(self, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of a state; the default is right for NCHW states."""
        return _map_shape(state, size)

    def levels(self, image: Tensor) -> list[Tensor]:
        """Maps of an image batch (B, 3, H, W), fine to coarse, by running stem, blocks and exits."""
        size = size_of(image)
        maps: dict[int, Tensor] = {}
        for position, state in enumerate(self._states(image)):
            for level, taken_at in enumerate(self.exits):
                if taken_at == position:
                    maps[level] = self.to_map(state, level, size)
        return [maps[level] for level in range(len(self.exits))]

    def forward(self, image: Tensor) -> Pyramid:
        """Pyramid of an image batch (B, 3, H, W); one per task where layers depend on the task."""
        if self.task_passes is not None:
            return self.task_passes.run(self, image)
        return Pyramid.of(self.levels(image), self.strides)

    def declaration(self) -> Declaration:
        """A backbone that is computed per task already cannot branch as well."""
        if self.task_passes is None:
            return super().declaration()
        return Declaration(cannot_branch="an adapter before computes it once per task")

    @property
    def blocks(self) -> list[Block]:
        """The cuttable units in the order they run.

        Raises:
            UncutError: this architecture cannot be cut.
        """
        names = self.block_names()
        shapes = self.__dict__.get("_shapes") or self.measure()
        before = (shapes.stem, *shapes.blocks)
        return [
            Block(name, before[index][0], shapes.blocks[index][0], shapes.blocks[index][1], module)
            for index, (name, module) in enumerate(zip(names, self._modules_of(names), strict=True))
        ]

    def block_depths(self) -> dict[str, int]:
        """{path of a block: how many blocks run before it}; blocks side by side have one depth."""
        return {name: index for index, name in enumerate(self.block_names())}

    def measure(self, size: tuple[int, int] | None = None) -> Shapes:
        """Learn channels and strides from a dry run without values or memory; sets both attributes.

        Call it again after a change of widths.

        Args:
            size: (H, W) of the image; by default 128 or eight times `size_multiple` high, and twice as wide.
        """
        side = max(128, 8 * self.size_multiple)
        shapes = _without_values(_Trace(self), size or (side, 2 * side))
        self.channels = tuple(channels for channels, _ in shapes.levels)
        self.strides = tuple(stride for _, stride in shapes.levels)
        self.__dict__["_shapes"] = shapes
        return shapes

    def level_modules(self) -> list[str]:
        """Paths of the modules that write the levels, where that is known and there are no blocks."""
        return []

    def resampled(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a checkpoint for another image size, made to fit this backbone where a rule is known.

        Args:
            state: {name in this backbone: tensor}, some of another shape than here.

        Returns:
            Those that were changed; by default none. A result that still does not fit is not used.
        """
        return {}

    def trial_size(self) -> tuple[int, int]:
        """(H, W) of a small image that this backbone takes."""
        side = max(64, 2 * self.size_multiple)
        return side, 2 * side

    def pad(self, image: Tensor) -> Tensor:
        """`image` with zeros below and on the right up to `size_multiple`."""
        if self.size_multiple == 1:
            return image
        bottom, right = (-side % self.size_multiple for side in size_of(image))
        # A traced program serves any size: whether this one needs no zeros must not decide what it does.
        traced = torch.compiler.is_compiling()
        return F.pad(image, (0, right, 0, bottom)) if traced or bottom or right else image

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of an image of `size` after `pad`."""
        height, width = (ceil_div(side, self.size_multiple) * self.size_multiple for side in size)
        return height, width

    def run_block(self, module: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
        """State after a block; what the block computes inside is not stored with `grad_checkpointing`."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            inside = module if isinstance(module, nn.Module) else self
            after: Tensor = computed_again(module, inside, state)
            return after
        return module(state)

    def _states(self, image: Tensor) -> Iterator[Tensor]:
        state = self.stem(image)
        yield state
        for module in self._modules_of(self.block_names()):
            state = self.run_block(module, state)
            yield state

    def _modules_of(self, names: list[str]) -> list[nn.Module]:
        return [self.get_submodule(name) for name in names]

    def _uncut(self) -> UncutError:
        return UncutError(
            f"{type(self).__name__}: this architecture is not cut into blocks, so it cannot be branched, "
            "pruned or probed block by block. Use one that is (docs/models.md lists them) or implement "
            "stem, block_names and to_map."
        )


class _Trace(nn.Module):
    """Runs a backbone once and notes shapes instead of returning maps."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Shapes:
        passes = self.backbone.task_passes  # all tasks have the same shapes
        task = None if passes is None else passes.tasks[0]
        with use_context(replace(current_context(), task=task)), remembering(size_of(image)):
            return self._shapes(image)

    def _shapes(self, image: Tensor) -> Shapes:
        backbone = self.backbone
        # Maps cover the padded image: 128 pixels make ten patches of 14, whose stride is 14 and not 12.
        size = backbone.padded_size(size_of(image))
        if not backbone.exits:
            return Shapes((0, 1), (), tuple(_map_shape(item, size) for item in backbone.levels(image)))
        states = list(backbone._states(image))
        shapes = [backbone.state_shape(state, size) for state in states]
        maps = [backbone.to_map(states[exit_], level, size) for level, exit_ in enumerate(backbone.exits)]
        return Shapes(shapes[0], tuple(shapes[1:]), tuple(_map_shape(item, size) for item in maps))


def _map_shape(feature: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    return int(feature.shape[1]), size[0] // int(feature.shape[2])


def _without_values(module: nn.Module, size: tuple[int, int]) -> Shapes:
    """Call `module` on a meta image with meta parameters in place of its own, which stay untouched."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    empty = {name: torch.empty_like(item, device="meta") for name, item in tensors}
    with torch.no_grad(), evaluating(module), RememberedShapes():
        shapes: Shapes = functional_call(module, empty, (torch.empty(1, 3, *size, device="meta"),))
    return shapes
