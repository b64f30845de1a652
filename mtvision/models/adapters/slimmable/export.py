"""A slimmed configuration as a network of plain modules with sliced weights."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context, use_context
from mtvision.models.adapters.slimmable.attention import SlimHeads, SlimSuite
from mtvision.models.adapters.slimmable.batch_norm import SlimBatchNorm2d, slimming_of
from mtvision.models.adapters.slimmable.plan import dry_run
from mtvision.models.adapters.slimmable.width import Slimming, Widths
from mtvision.models.network import Network


def export(network: Network, widths: WidthConfig) -> Network:
    """The network at one configuration, made of plain modules: no context, no slicing, only its own weights.

    Its outputs equal those of the slimmed network. `architecture` tells `build_network` to make it again
    (adapter `Slimmable` with `fixed`), so that config and state dict rebuild it.

    Args:
        network: a slimmable network; unchanged.
        widths: what to export. Batch norms must be calibrated for it.

    Raises:
        ValueError: the network is not slimmable or not calibrated for these widths.
    """
    result = copy.deepcopy(network)
    export_in_place(result, widths)
    adapters = [dict(item) for item in network.architecture.get("adapters", [])]
    for item in adapters:
        if item.get("type") == "Slimmable":
            item["fixed"] = widths.to_plain()
    result.architecture = {**network.architecture, "adapters": adapters}
    return result


@torch.no_grad()
def export_in_place(network: Network, widths: WidthConfig, *, fresh: bool = False) -> None:
    """Turn a slimmable network into the plain one of these widths.

    Args:
        network: changed.
        widths: what remains.
        fresh: batch norms without statistics start anew instead of being refused.
    """
    control = slimming_of(network)
    given: dict[nn.Module, int] = {}

    def note(module: Any, args: Any) -> None:
        given[module] = int(args[0].shape[module.channel_axis])

    sliced = [
        item for item in network.modules() if hasattr(item, "channel_axis") and _is_outside(item, control)
    ]
    with ExitStack() as stack:
        for module in sliced:
            stack.callback(module.register_forward_pre_hook(note).remove)
        result = dry_run(network, widths, training=True)
    with use_context(Context(widths=widths.to_plain())):
        heads = {item: item.num_heads for item in network.modules() if isinstance(item, SlimHeads)}
        for module in sliced:  # a layer that did not run itself is used by its weights
            slicing: Any = module.slicing
            _harden(module, given.get(module) or slicing.arriving(), control.complete(widths), fresh)
        suite = [item for item in network.modules() if isinstance(item, SlimSuite)]
        leading = [entry for item in suite for entry in item.leading()]
    for owner, name, value in leading:
        owner._parameters[name] = _own(value)
    for module in (*heads, *suite):
        _plain_again(module)
    for head, count in heads.items():
        if "attn_dim" in head.__dict__:
            head.__dict__["attn_dim"] = head.__dict__["attn_dim"] // head.__dict__["num_heads"] * count
        head.__dict__["num_heads"] = count
        biases = head._parameters.get("relative_position_bias_table")
        if biases is not None:
            head._parameters["relative_position_bias_table"] = _own(biases[:, :count])
    del network._modules["slimming"]
    network.backbone.measure()
    network.decoder.channels = network.backbone.channels
    network.decoder.out_channels = {
        name: int(item.shape[1]) for name, item in result.decoded.features.items()
    }


def _is_outside(module: nn.Module, control: Slimming) -> bool:
    return all(module is not item for item in control.modules())


def _own(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format))


def _plain_again(module: Any) -> None:
    module.__class__ = module.plain
    del module.plain, module.slicing


def _harden(module: Any, given: int, widths: Widths, fresh: bool) -> None:
    """Make a slimmed layer plain: parameters of its own, and the attributes that describe them."""
    if isinstance(module, SlimBatchNorm2d):
        _harden_norm(module, given, widths, fresh)
        return
    values = module.active(given)
    for name, value in zip(module.sliced, values, strict=False):
        if value is not None:
            module._parameters[name] = _own(value)
    described = module.describe(given, values)
    _plain_again(module)
    for name, number in described.items():
        setattr(module, name, number)


def _harden_norm(norm: SlimBatchNorm2d, given: int, widths: Widths, fresh: bool) -> None:
    try:
        mean, var = norm.statistics(widths, given)
    except ValueError:
        if not fresh:
            raise
        mean, var = norm._full(given)
    weight, bias = norm.scale_and_shift(widths, given)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            norm._parameters[name] = _own(value)
    norm._buffers["running_mean"], norm._buffers["running_var"] = mean.clone(), var.clone()
    for name in ("slot_mean", "slot_var", "switch_mean", "switch_var"):
        norm._buffers.pop(name, None)
    for name in ("switch_weight", "switch_bias"):
        norm._modules.pop(name, None)
    del norm.switches
    norm.num_features = given
    _plain_again(norm)
