"""Layers whose weights are sliced in every forward pass.

Each class is the plain one with another `forward`: same parameters under the same names, so that a module is
converted by giving it the class and a `slicing`, and turned back by taking them away.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.layer_scale import LayerScale
from timm.layers.norm import LayerNorm as TimmLayerNorm
from timm.layers.norm import LayerNorm2d
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.adapters.slimmable.width import Slicing, take

Runs = tuple[tuple[int, int], ...]


class Sliced:
    """What all these classes share.

    Attributes:
        slicing: which slice is active.
        plain: class that the module was.
        channel_axis: of the input.
        sliced: names of the parameters that `active` returns first, in its order.
    """

    slicing: Slicing
    plain: type[nn.Module]
    channel_axis: ClassVar[int] = 1
    sliced: ClassVar[tuple[str, ...]] = ("weight", "bias")


def grouped_outputs(conv: nn.Conv2d | nn.Conv1d, given: int) -> tuple[int, int]:
    """(active groups, active output channels) of a grouped convolution that gets `given` channels.

    Groups are whole or absent; a depthwise convolution has one channel in each.

    Raises:
        ValueError: the channels that arrive do not make whole groups.
    """
    read = conv.in_channels // conv.groups
    if given % read:
        raise ValueError(f"slimmable: {given} channels arrive at a convolution of groups of {read}.")
    return given // read, given // read * (conv.out_channels // conv.groups)


class SlimConv2d(Sliced, nn.Conv2d):
    """Convolution of (B, c, H, W) with `weight[:out, :c]`; grouped ones keep as many groups as arrive."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to (B, active outputs, h, w)."""
        weight, bias, groups = self.active(int(x.shape[1]))
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)

    def active(self, given: int) -> tuple[Tensor, Tensor | None, int]:
        """Weight, bias and groups for an input of `given` channels."""
        if self.groups > 1:
            groups, out = grouped_outputs(self, given)
            factor = self.out_channels / self.in_channels
            read = self.slicing.read(self.in_channels, given)
            runs: Runs = ((self.out_channels, out),)
            if len(read) > 1:
                runs = tuple((round(full * factor), round(part * factor)) for full, part in read)
            weight = take(self.weight, 0, runs)
        else:
            groups, runs = 1, self.slicing.written(self.out_channels)
            weight = take(take(self.weight, 0, runs), 1, self.slicing.read(self.in_channels, given))
        return weight, None if self.bias is None else take(self.bias, 0, runs), groups

    def describe(self, given: int, values: tuple[Any, ...]) -> dict[str, Any]:
        """Attributes of the plain module with these values."""
        return {"in_channels": given, "out_channels": int(values[0].shape[0]), "groups": values[2]}


class SlimConv2dSame(SlimConv2d):
    """The same with TensorFlow's padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to (B, active outputs, h, w)."""
        return super().forward(pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation)))


class SlimConvTranspose2d(Sliced, nn.ConvTranspose2d):
    """Transposed convolution with `weight[:c, :out]`; not grouped, no `output_size`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, c, H, W) to (B, active outputs, h, w)."""
        weight, bias = self.active(int(x.shape[1]))
        padding = cast("tuple[int, int]", self.padding)
        return F.conv_transpose2d(
            x, weight, bias, self.stride, padding, self.output_padding, 1, self.dilation
        )

    def active(self, given: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for an input of `given` channels."""
        runs = self.slicing.written(self.out_channels)
        weight = take(take(self.weight, 1, runs), 0, self.slicing.read(self.in_channels, given))
        return weight, None if self.bias is None else take(self.bias, 0, runs)

    def describe(self, given: int, values: tuple[Any, ...]) -> dict[str, Any]:
        """Attributes of the plain module with these values."""
        return {"in_channels": given, "out_channels": int(values[0].shape[1])}


class SlimLinear(Sliced, nn.Linear):
    """Linear layer over the last axis with `weight[:out, :c]`."""

    channel_axis = -1

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to (..., active outputs)."""
        weight, bias = self.active(int(x.shape[-1]))
        return F.linear(x, weight, bias)

    def active(self, given: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for an input of `given` channels."""
        runs = self.slicing.written(self.out_features)
        weight = take(take(self.weight, 0, runs), 1, self.slicing.read(self.in_features, given))
        return weight, None if self.bias is None else take(self.bias, 0, runs)

    def describe(self, given: int, values: tuple[Any, ...]) -> dict[str, Any]:
        """Attributes of the plain module with these values."""
        return {"in_features": given, "out_features": int(values[0].shape[0])}


class SlimLayerNorm(Sliced, nn.LayerNorm):
    """Layer norm over the channels that arrive, with the affine's slice."""

    channel_axis = -1

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to the same shape."""
        given = int(x.shape[-1])
        weight, bias = self.active(given)
        return F.layer_norm(x, (given,), weight, bias, self.eps)

    def active(self, given: int) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias for `given` channels."""
        runs = self.slicing.read(self.normalized_shape[0], given)
        affine = (self.weight, self.bias)
        weight, bias = (None if item is None else take(item, 0, runs) for item in affine)
        return weight, bias

    def describe(self, given: int, values: tuple[Any, ...]) -> dict[str, Any]:
        """Attributes of the plain module with these values."""
        return {"normalized_shape": (given,)}


class SlimLayerNorm2d(SlimLayerNorm):
    """The same on maps with the channels in front."""

    channel_axis = 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SlimGroupNorm(Sliced, nn.GroupNorm):
    """Group norm that keeps the size of its groups."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, ...) to the same shape."""
        weight, bias, groups = self.active(int(x.shape[1]))
        return F.group_norm(x, groups, weight, bias, self.eps)

    def active(self, given: int) -> tuple[Tensor | None, Tensor | None, int]:
        """Weight, bias and groups for `given` channels.

        Raises:
            ValueError: they do not make whole groups.
        """
        size = self.num_channels // self.num_groups
        if given % size:
            raise ValueError(f"slimmable: {given} channels do not make whole groups of {size} (group norm).")
        runs = self.slicing.read(self.num_channels, given)
        affine = cast("tuple[Tensor | None, Tensor | None]", (self.weight, self.bias))
        weight, bias = (None if item is None else take(item, 0, runs) for item in affine)
        return weight, bias, given // size

    def describe(self, given: int, values: tuple[Any, ...]) -> dict[str, Any]:
        """Attributes of the plain module with these values."""
        return {"num_channels": given, "num_groups": values[2]}


class SlimLayerScale(Sliced, LayerScale):  # type: ignore[misc]
    """timm's layer scale with the leading factors."""

    channel_axis = -1
    sliced = ("gamma",)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to the same shape."""
        (gamma,) = self.active(int(x.shape[-1]))
        return x.mul_(gamma) if self.inplace else x * gamma

    def active(self, given: int) -> tuple[Tensor]:
        """The leading `given` factors."""
        return (self.gamma[:given],)

    def describe(self, given: int, values: tuple[Any, ...]) -> dict[str, Any]:
        """Attributes of the plain module with these values."""
        return {}


CONVERSIONS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: SlimConv2d,
    Conv2dSame: SlimConv2dSame,
    nn.ConvTranspose2d: SlimConvTranspose2d,
    nn.Linear: SlimLinear,
    nn.LayerNorm: SlimLayerNorm,
    TimmLayerNorm: SlimLayerNorm,
    LayerNorm2d: SlimLayerNorm2d,
    nn.GroupNorm: SlimGroupNorm,
    LayerScale: SlimLayerScale,
}
"""{plain class: slimmable class}; see also `batch_norm`, and `attention` for what holds several layers."""
