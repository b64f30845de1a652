"""Parts of a network whose activations are computed again in the backward pass, to save memory."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.computed_again import computed_again
from mtvision.models.network import Network

BACKBONE, DECODER = "backbone", "decoder"
"""Patterns that stand for what these parts say."""


def recompute(network: Network, patterns: Sequence[str]) -> list[str]:
    """Let parts of a network be computed twice in training, so that less memory is in use at once.

    Outputs, gradients and running statistics are the same. Names in the state dict stay. Nothing changes in
    evaluation mode and without gradients.

    Args:
        network: changed in place.
        patterns: globs of module paths. `backbone` stands for the blocks of the backbone, `decoder` for what
            the decoder names (`Decoder.recomputed`).

    Returns:
        Paths of the modules that are computed again. What lies inside another one is not named.

    Raises:
        UnknownNameError: a pattern matches no module.
        NotImplementedError: `backbone` is asked for, and it is not cut into blocks.
    """
    named = dict(network.named_modules())
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern == BACKBONE:
            chosen.update(_blocks(network.backbone))
            continue
        found = _units(network, pattern, list(named))
        if not found:
            known = [path for path in named if path]  # with the two words
            raise UnknownNameError("module in training.recompute", pattern, known)
        chosen.update(found)
    outer = [path for path in named if path in chosen and not _inside(path, chosen)]
    for path in outer:
        if BACKBONE in patterns and path.startswith("backbone."):
            continue  # `Backbone.run_block` does it
        named[path].forward = _ComputedTwice(named[path])  # type: ignore[method-assign]
    return outer


class _ComputedTwice:
    """In place of a module's `forward`; a copy of the module has a copy of this, which calls the copy.

    Args:
        module: whose activations are computed again.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        run = partial(type(self.module).forward, self.module)
        if not (self.module.training and torch.is_grad_enabled()):
            return run(*arguments, **options)
        return computed_again(run, self.module, *arguments, **options)


def _units(network: Network, pattern: str, paths: Sequence[str]) -> list[str]:
    if pattern == DECODER:
        return [f"decoder.{name}".removesuffix(".") for name in network.decoder.recomputed()]
    return [path for path in paths if path and fnmatchcase(path, pattern)]


def _blocks(backbone: Backbone) -> list[str]:
    """Paths of the blocks, which are computed again from now on."""
    names = backbone.block_names()
    for module in backbone.modules():
        if isinstance(module, Backbone):
            module.grad_checkpointing = True
    return [f"backbone.{name}" for name in names]


def _inside(path: str, chosen: set[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:count]) in chosen for count in range(1, len(parts)))
