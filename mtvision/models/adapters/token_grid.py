"""Where the tokens that a layer sees lie on the image, for layers that get rows of tokens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from mtvision.core.pyramid import ceil_div
from mtvision.models.backbones.backbone import Backbone


@dataclass(frozen=True)
class TokenGrid:
    """Layout of tokens (B, prefix + h·w, C).

    Args:
        prefix: tokens that belong to no patch.
        stride: image pixels per patch.
    """

    prefix: int
    stride: int

    def sides(self, image: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of an image (H, W), which is padded to whole patches."""
        height, width = (ceil_div(side, self.stride) for side in image)
        return height, width


def token_grids(backbone: Backbone, paths: Collection[str]) -> dict[str, TokenGrid | None]:
    """Layouts of what layers read, from a dry run.

    Args:
        backbone: has blocks.
        paths: of layers inside its blocks that read rows of tokens.

    Returns:
        {path: its layout}; None for windows, whose tokens are fewer than the map has.
    """
    strides = {f"{block.name}.": block.stride for block in backbone.blocks}
    side = 16 * max(strides.values())
    seen: dict[str, int] = {}

    def note(path: str) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            seen[path] = given[0].shape[1]

        return hook

    handles: list[RemovableHandle] = [
        backbone.get_submodule(path).register_forward_pre_hook(note(path)) for path in paths
    ]
    try:
        backbone.measure((side, 2 * side))
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, TokenGrid | None] = {}
    for path, tokens in seen.items():
        stride = next(stride for name, stride in strides.items() if path.startswith(name))
        height, width = TokenGrid(0, stride).sides(backbone.padded_size((side, 2 * side)))
        prefix = tokens - height * width
        found[path] = None if prefix < 0 else TokenGrid(prefix, stride)
    return found
