"""Modes of modules, training or evaluation, given back after a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def kept_modes(module: nn.Module) -> Iterator[None]:
    """Give every module inside `module` its own mode back at the end of the block."""
    modes = {item: item.training for item in module.modules()}
    try:
        yield
    finally:
        for item, mode in modes.items():
            item.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module gets its own mode back."""
    with kept_modes(module):
        module.eval()
        yield
