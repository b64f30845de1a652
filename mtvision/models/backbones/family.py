"""Rules that cut timm's architectures into stem, blocks and exits.

One small class per family of architectures; every method gets the timm model, none keeps it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Family:
    """Cutting rules of one family. The default methods suit networks whose states are NCHW maps.

    Attributes:
        classes: of timm.
        example: a timm name, for messages.
        plain: all levels have one stride, as in a plain ViT.
        final_norm: the last level of a plain network passes the model's `norm`.
    """

    classes: tuple[type[nn.Module], ...] = ()
    example = ""
    plain = False
    final_norm = False

    def refusal(self, model: Any) -> str:
        """Why a model of these classes has no blocks; empty where it has."""
        return ""

    def prepare(self, model: Any) -> None:
        """Change a model in place, after its weights are loaded, so that its blocks need the state alone."""

    def size_multiple(self, model: Any) -> int:
        """Images are padded to a multiple of this; 1 where the network's own padding loses no border."""
        return 1

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """State before the first block."""
        raise NotImplementedError

    def units(self, model: Any) -> list[list[str]]:
        """Names of the blocks, grouped by timm's feature levels; the first group precedes level 0."""
        raise NotImplementedError

    def to_map(self, model: Any, state: Tensor, size: tuple[int, int]) -> Tensor:
        """NCHW map of a state of an image of (padded) size `size`."""
        return state

    def shape(self, model: Any, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of a state."""
        feature = self.to_map(model, state, size)
        return int(feature.shape[1]), size[0] // int(feature.shape[2])


class ChannelsLastFamily(Family):
    """Networks whose states are NHWC maps."""

    def to_map(self, model: Any, state: Tensor, size: tuple[int, int]) -> Tensor:
        """A view with the channels in front."""
        return state.permute(0, 3, 1, 2)


def call_qkv(blocks: Any) -> None:
    """Let attention call `qkv` and add the biases of queries and values after it, to rounding the same."""
    for block in blocks:
        block.attn.qkv_bias_separate = True
