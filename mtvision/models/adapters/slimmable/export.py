"""A slimmed configuration as a network of plain modules with sliced weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from mtvision.architecture.widths import WidthConfig, Widths
from mtvision.core.context import Context, use_context
from mtvision.models.adapters.slimmable.batch_norm import SlimBatchNorm2d, plain_batch_norm, slimming_of
from mtvision.models.adapters.slimmable.sliced import Sliced, SlicedModule, plain_module, replace_modules
from mtvision.models.dry_run import dry_run
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
    result = dry_run(network, widths, training=True)
    inside = set(control.modules())
    sliced = [item for item in network.modules() if isinstance(item, Sliced) and item not in inside]
    with use_context(Context(widths=widths.to_plain())):
        now = control.complete(widths)
        plain: dict[nn.Module, nn.Module] = {item: _plain(item, now, fresh=fresh) for item in sliced}
    replace_modules(network, plain)
    del network._modules["slimming"]
    network.projectors = ()
    network.backbone.measure()
    network.decoder.channels = network.backbone.channels
    network.decoder.out_channels = {
        name: int(item.shape[1]) for name, item in result.decoded.features.items()
    }


def _plain(module: Sliced, widths: Widths, *, fresh: bool) -> nn.Module:
    if isinstance(module, SlimBatchNorm2d):
        return plain_batch_norm(module, widths, fresh=fresh)
    assert isinstance(module, SlicedModule)
    return plain_module(module, *module.in_force())
