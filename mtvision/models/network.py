"""Backbone, decoder and heads as one module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from mtvision.core.context import Context, current_context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.observer import observe
from mtvision.core.output import Auxiliary, NetworkOutput
from mtvision.core.pyramid import size_of
from mtvision.core.task import Task
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.check import check_heads
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.freezing import Frozen, freeze
from mtvision.models.layers import is_regularised, resize


class Network(nn.Module):
    """Image to logits of every task.

    Args:
        backbone: image to pyramid.
        decoder: pyramid to one feature map per task.
        heads: {task name: feature map to logits}.
        tasks: what the network predicts, in order.
        architecture: plain data from which `build_network` makes this network again, without weights.

    Attributes:
        projectors: modules that map each level of a slimmed pyramid to all channels, if an adapter made any.

    Raises:
        ValueError: a task has no head.
        UnknownNameError: a head belongs to no task.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        heads: Mapping[str, nn.Module],
        tasks: Sequence[Task],
        *,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        check_heads(heads, self.task_names)
        self.backbone, self.decoder = backbone, decoder
        self.heads = nn.ModuleDict({name: heads[name] for name in self.task_names})
        self.architecture = dict(architecture or {})
        self.projectors: tuple[nn.Module, ...] = ()
        self._frozen: tuple[str, ...] = ()

    def freeze(self, patterns: Sequence[str]) -> Frozen:
        """Stop training the parameters that a glob matches, `!GLOB` excepted; see `mtvision.models.freezing`.

        Modules whose parameters are all frozen stay in evaluation mode, also after `train()`. Running
        statistics of their norms do not move, and they drop nothing.

        Raises:
            FreezeError: a pattern matches no parameter, or all parameters match.
        """
        frozen = freeze(self, patterns)
        self._frozen = frozen.modules
        self.train(self.training)
        return frozen

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """Paths of the modules that `freeze` keeps in evaluation mode, the outermost ones only."""
        return self._frozen

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for path in self._frozen:
            self.get_submodule(path).eval()
        return self

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(task.name for task in self.tasks)

    def forward(
        self,
        image: Tensor,
        tasks: Sequence[str] | None = None,
        context: Context | None = None,
        size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """Logits of each task.

        Args:
            image: normalised RGB, float (B, 3, H, W), any H and W.
            tasks: names to predict, all by default. What only other tasks need is not computed.
            context: run-time state of a conditional network, in force during this call.
            size: (height, width) of the result, by default that of the image.

        Returns:
            {task: float32 (B, out_channels, height, width)}, bilinear with `align_corners=False`.

        Raises:
            UnknownNameError: the network has no such task.
        """
        return self.outputs(image, tasks, context, size).logits

    def outputs(
        self,
        image: Tensor,
        tasks: Sequence[str] | None = None,
        context: Context | None = None,
        size: tuple[int, int] | None = None,
    ) -> NetworkOutput:
        """Like `forward`, with the logits of deep supervision as well, resized alike."""
        for name in tasks or ():
            if name not in self.heads:
                raise UnknownNameError("task of this network", name, self.task_names)
        image_size = size_of(image)
        read = self.decoder.reads(tasks)
        active = replace(context or current_context(), tasks=None if read is None else tuple(read))
        with use_context(active):
            pyramid = self.backbone(image)
            decoded = self.decoder(pyramid, tasks)
            maps = {name: self.heads[name](feature) for name, feature in decoded.features.items()}
            observe(active, self, pyramid, maps)
        logits = {name: self._to_size(item, image_size, size) for name, item in maps.items()}
        auxiliary = [
            Auxiliary(item.task, self._to_size(item.logits, image_size, size), item.weight)
            for item in decoded.auxiliary
        ]
        return NetworkOutput(logits, auxiliary)

    @contextmanager
    def context(self, context: Context | None = None, **changes: Any) -> Iterator[Context]:
        """Put a context in force inside a `with` block.

        Args:
            context: the whole context; by default the current one.
            changes: fields of it that differ, e.g. `task="depth"`.

        Raises:
            UnknownNameError: the network has no such task.
        """
        task = changes.get("task")
        if task is not None and task not in self.task_names:
            raise UnknownNameError("task of this network", task, self.task_names)
        with use_context(replace(context or current_context(), **changes)) as active:
            yield active

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Losses of modules of their own, see `Regularised`: {module path: scalar}."""
        return {
            path: module.auxiliary_loss() for path, module in self.named_modules() if is_regularised(module)
        }

    def _to_size(self, logits: Tensor, image: tuple[int, int], size: tuple[int, int] | None) -> Tensor:
        """Logits at `size`. The maps of a backbone that padded cover more than the image: cut that off."""
        target, padded = size or image, self.backbone.padded_size(image)
        if size is not None:
            sides = zip(target, padded, image, strict=True)
            height, width = (round(goal * whole / side) for goal, whole, side in sides)
        else:
            height, width = padded
        real = logits if logits.dtype == torch.float64 else logits.float()
        return resize(real, (height, width))[..., : target[0], : target[1]]
