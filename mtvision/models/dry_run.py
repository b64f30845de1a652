"""Runs a network once on small black images and leaves no trace in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context, use_context
from mtvision.core.output import DecoderOutput
from mtvision.core.shapes import RememberedShapes
from mtvision.models.modes import kept_modes
from mtvision.models.network import Network


@dataclass
class Pass:
    """What one pass left: the decoder's output and the logits of the heads, both as they were written."""

    decoded: DecoderOutput
    logits: dict[str, Tensor]


class _Run(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Pass:
        network = self.network
        decoded: DecoderOutput = network.decoder(network.backbone(image))
        return Pass(decoded, {name: network.heads[name](item) for name, item in decoded.features.items()})


@contextmanager
def in_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside a block; every module gets its own back.

    What has neither parameters nor children (dropout, stochastic depth) is always in evaluation mode.
    """
    with kept_modes(network):
        network.train(training)
        for item in network.modules():
            if not item._parameters and not item._modules:
                item.training = False
        yield


@contextmanager
def with_values(network: Network) -> Iterator[Network]:
    """A network whose tensors have values, to be run inside the block.

    It is the network itself, or, on the meta device, a copy on the CPU. There every weight is 1 and every
    index 0, which is enough to see where channels go.
    """
    if not next(network.parameters()).is_meta:
        yield network
        return
    copied = copy.deepcopy(network).to_empty(device="cpu")
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data.fill_(1 if tensor.is_floating_point() else 0)
    with torch.device("cpu"):
        yield copied


@torch.no_grad()
def dry_run(
    network: Network, widths: WidthConfig | None = None, *, training: bool = False, images: int = 2
) -> Pass:
    """Run a network on small black images; its buffers, its mode and random states stay untouched."""
    wrapped = _Run(network)
    buffers = {name: item.clone() for name, item in wrapped.named_buffers()}
    device = next(network.parameters()).device
    image = torch.zeros(images, 3, *network.backbone.trial_size(), device=device)
    context = None if widths is None else Context(widths=widths.to_plain())
    with (
        in_mode(network, training),
        use_context(context),
        torch.random.fork_rng(devices=[]),
        RememberedShapes() if device.type == "meta" else nullcontext(),
    ):
        result: Pass = functional_call(wrapped, buffers, (image,))
    return result
