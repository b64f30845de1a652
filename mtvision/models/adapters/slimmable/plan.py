"""Which part every layer of a network belongs to, found by running it once on a black image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context, use_context
from mtvision.core.output import DecoderOutput
from mtvision.models.adapters.prompted_vit import PromptViTBlock
from mtvision.models.adapters.slimmable.suite import REGROUP
from mtvision.models.adapters.slimmable.width import DIVISOR, Part
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.network import Network


@dataclass
class Plan:
    """What the dry run found.

    Args:
        parts: {module path: part}, of every module that ran.
        fixed: paths of layers whose output channels are those of a task's logits.
        divisors: {part: what its active channels must be a multiple of}, where that is not 8.
        stages: of the encoder.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    divisors: dict[Part, int] = field(default_factory=dict)
    stages: int = 1


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
    """Training or evaluation mode inside a block; every module gets its own back."""
    modes = {item: item.training for item in network.modules()}
    network.train(training)
    try:
        yield
    finally:
        for item, mode in modes.items():
            item.training = mode


@torch.no_grad()
def dry_run(network: Network, widths: WidthConfig | None = None, *, training: bool = False) -> Pass:
    """Run a network on a small black image; its buffers, its mode and random states stay untouched.

    (Without values, on the meta device, it would take twenty times as long.)
    """
    wrapped = _Run(network)
    buffers = {name: item.clone() for name, item in wrapped.named_buffers()}
    device = next(network.parameters()).device
    image = torch.zeros(2, 3, *network.backbone.trial_size(), device=device)
    context = None if widths is None else Context(widths=widths.to_plain())
    with in_mode(network, training), use_context(context), torch.random.fork_rng(devices=[]):
        result: Pass = functional_call(wrapped, buffers, (image,))
    return result


def make_plan(network: Network) -> Plan:
    """Note in which stage, or for which task, every module runs.

    A stage is what runs up to one level of the pyramid. An encoder whose levels share a stride (ViT), or
    whose levels cannot be told apart, is a single stage: one width goes through all of it.
    """
    plan = Plan()
    starts, ends, plan.stages = _boundaries(network)
    stage = [0]
    order: list[str] = []
    written: dict[int, str] = {}

    def watch(path: str, module: nn.Module) -> Iterator[Any]:
        def before(_: nn.Module, __: Any) -> None:
            stage[0] = starts.get(path, stage[0])
            plan.parts.setdefault(path, _part(path, stage[0], network.task_names))
            order.append(path)

        def after(_: nn.Module, __: Any, output: Any) -> None:
            stage[0] = min(ends.get(path, stage[0]), plan.stages - 1)
            if isinstance(output, Tensor) and writes_channels(module):
                written[id(output)] = path

        yield module.register_forward_pre_hook(before)
        yield module.register_forward_hook(after)

    with ExitStack() as stack:
        for path, module in network.named_modules():
            for handle in watch(path, module):
                stack.callback(handle.remove)
        result = dry_run(network, training=True)
    plan.fixed = {written[id(item.logits)] for item in result.decoded.auxiliary if id(item.logits) in written}
    modules = dict(network.named_modules())
    for task, logits in result.logits.items():
        inside = [
            path for path in order if path.startswith(f"heads.{task}.") and writes_channels(modules[path])
        ]
        plan.fixed |= {written.get(id(logits), inside[-1] if inside else f"heads.{task}")}
    _regroup(modules, plan)
    plan.divisors = _divisors(modules, plan.parts)
    return plan


def _regroup(modules: Mapping[str, nn.Module], plan: Plan) -> None:
    """Parts that a module decides for what lies inside it."""
    for path, module in modules.items():
        rule = REGROUP.get(type(module))
        for below, part in () if rule is None else rule(module, plan.stages):
            inside = f"{path}.{below}"
            for name in plan.parts:
                if name == inside or name.startswith(f"{inside}."):
                    plan.parts[name] = part


def writes_channels(module: nn.Module) -> bool:
    """Whether a layer chooses how many channels it writes."""
    return isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


def _boundaries(network: Network) -> tuple[dict[str, int], dict[str, int], int]:
    """{module that begins: stage}, {module that ends: next stage}, number of stages."""
    backbone = network.backbone
    if len(set(backbone.strides)) < len(backbone.strides):
        return {}, {}, 1
    if backbone.exits:
        names = backbone.block_names()
        starts = {
            f"backbone.{name}": sum(1 for exit_ in backbone.exits if exit_ <= index)
            for index, name in enumerate(names)
        }
        return starts, {}, len(backbone.exits)
    if isinstance(backbone, TimmBackbone):
        paths = [f"backbone.{name}" for name in backbone.level_modules()]
        if paths and all(path in dict(network.named_modules()) for path in paths):
            return {}, {path: index + 1 for index, path in enumerate(paths)}, len(paths)
    return {}, {}, 1


def _part(path: str, stage: int, tasks: Sequence[str]) -> Part:
    keys = path.split(".")
    if keys[0] == "backbone":
        return Part("stage", stage)
    task = next((key for key in keys[1:] if key in tasks), None)
    return Part("shared") if task is None else Part("task", task)


def _divisors(modules: Mapping[str, nn.Module], parts: Mapping[str, Part]) -> dict[Part, int]:
    """Grouped convolutions and group norms need whole groups, so the layers before must write those."""
    divisors: dict[Part, int] = {}
    for path, part in parts.items():
        module = modules[path]
        size = 1
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            size = module.in_channels // module.groups
        elif isinstance(module, nn.GroupNorm):
            size = module.num_channels // module.num_groups
        elif isinstance(module, PromptViTBlock):  # prompts gate the channels of a head together
            size = module.block.attn.head_dim
        if size > 1:
            divisors[part] = math.lcm(divisors.get(part, DIVISOR), size)
    return divisors
