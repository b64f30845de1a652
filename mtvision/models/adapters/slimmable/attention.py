"""Modules that hold several layers, or parameters of their own, and must agree on the layout of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from timm.layers.attention import Attention
from timm.models.swin_transformer import PatchMerging, WindowAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mtvision.models.adapters.slimmable.width import Part, Segment, Slicing, active_channels
from mtvision.models.layers.patch_expand import PatchExpand


class SlimSuite(nn.Module):
    """A module with a slimmable class of its own."""

    slicing: Slicing
    plain: type[nn.Module]

    def leading(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """(owner, name, active slice) of parameters that no layer holds."""
        yield from ()


def become(module: Any, kind: type[nn.Module], slicing: Slicing) -> None:
    """Give a module its slimmable class, and what is needed to take it back."""
    module.plain = type(module)
    module.__class__ = kind
    module.slicing = slicing


class SlimHeads(nn.Module):
    """What both attentions share: fewer heads, each as wide as before."""

    slicing: Slicing
    plain: type[nn.Module]

    @property
    def num_heads(self) -> int:
        """Active heads."""
        size = self.slicing.divisor
        ratio = self.slicing.control.widths().ratio(self.slicing.part)
        return active_channels(self.__dict__["num_heads"] * size, ratio, size) // size

    @property
    def attn_dim(self) -> int:
        """Active channels of q, k and v each."""
        return self.num_heads * self.slicing.divisor


class SlimAttention(SlimHeads, Attention):  # type: ignore[misc,override]
    """timm's attention of ViTs, with the leading heads."""


class SlimWindowAttention(SlimHeads, WindowAttention):  # type: ignore[misc,override]
    """timm's window attention of Swin, with the leading heads and their position biases."""

    def _get_rel_pos_bias(self) -> Tensor:
        bias: Tensor = super()._get_rel_pos_bias()[:, : self.num_heads]
        return bias


class SlimVisionTransformer(SlimSuite, VisionTransformer):  # type: ignore[misc]
    """timm's ViT, whose tokens have the leading channels."""

    def _leading(self, name: str) -> Tensor | None:
        full = self._parameters.get(name)
        return None if full is None else full[..., : self.slicing.written(int(full.shape[-1]))[0][1]]

    @property
    def pos_embed(self) -> Tensor | None:  # type: ignore[override]
        """Position embedding (1, tokens, active channels)."""
        return self._leading("pos_embed")

    @property
    def cls_token(self) -> Tensor | None:  # type: ignore[override]
        """Class token (1, 1, active channels)."""
        return self._leading("cls_token")

    @property
    def reg_token(self) -> Tensor | None:  # type: ignore[override]
        """Register tokens (1, n, active channels)."""
        return self._leading("reg_token")

    def leading(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """Position embedding and tokens, as far as there are any."""
        for name in ("pos_embed", "cls_token", "reg_token"):
            value = self._leading(name)
            if value is not None:
                yield self, name, value


Rule = Callable[[Any, Callable[..., Slicing], Part], dict[str, Slicing]]
"""(module, maker of slicings, its part) to {child: slicing}; also gives the module itself its class."""


def _attention(module: Any, make: Callable[..., Slicing], part: Part) -> dict[str, Slicing]:
    size = int(module.qkv.out_features) // 3 // int(module.num_heads)
    kind = SlimAttention if isinstance(module, Attention) else SlimWindowAttention
    become(module, kind, make(part, divisor=size))
    children = {"qkv": make(part, divisor=size, blocks=3)}
    if getattr(module, "gate", None) is not None:
        children["gate"] = make(part, divisor=size)
    return children


def _vision_transformer(module: Any, make: Callable[..., Slicing], part: Part) -> dict[str, Slicing]:
    become(module, SlimVisionTransformer, make(part))
    return {}


def _patch_merging(module: Any, make: Callable[..., Slicing], part: Part) -> dict[str, Slicing]:
    inputs = (Segment(int(module.dim)),) * 4
    return {"norm": make(part, inputs=inputs), "reduction": make(part, inputs=inputs)}


def _patch_expand(module: Any, make: Callable[..., Slicing], part: Part) -> dict[str, Slicing]:
    return {"expand": make(part, blocks=int(module.factor) ** 2)}


COMPOSITES: dict[type[nn.Module], Rule] = {
    Attention: _attention,
    WindowAttention: _attention,
    VisionTransformer: _vision_transformer,
    PatchMerging: _patch_merging,
    PatchExpand: _patch_expand,
}
"""{class: rule}. A class of one's own with concatenated or reshaped channels joins by an entry here."""
