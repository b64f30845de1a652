"""Attention logits that a prompted backbone gives to a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mtvision.core.pyramid import Pyramid


@dataclass(frozen=True)
class PromptLogits:
    """Raw, unscaled scores of the task prompts against everything else in one block.

    Args:
        pixels: prompt to pixel, (B, heads, T, h, w).
        channels: prompt to channel inside each of g x g windows of the map, (B, T, C, g, g).
        prompts: prompt to prompt, (B, heads, T, T), the first axis asking; None where prompts attend window
            by window.
    """

    pixels: Tensor
    channels: Tensor
    prompts: Tensor | None = None


@dataclass(frozen=True)
class PromptPyramid(Pyramid):
    """A pyramid with the prompts' logits of each level.

    Args:
        logits: one entry a level.
        prompts: names of the prompts in the order of the T axis.
    """

    logits: tuple[PromptLogits, ...] = ()
    prompts: tuple[str, ...] = ()
