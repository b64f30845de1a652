"""`Slimmable`: makes the layers of a finished network slimmable, whatever its classes are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from mtvision.architecture.widths import DIVISOR, WidthConfig
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import without_tasks
from mtvision.core.values import Count, Share
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.slimmable.batch_norm import slim_batch_norm
from mtvision.models.adapters.slimmable.export import export_in_place
from mtvision.models.adapters.slimmable.follow import follow
from mtvision.models.adapters.slimmable.plan import Plan, make_plan
from mtvision.models.adapters.slimmable.sliced import replace_modules, slice_module
from mtvision.models.adapters.slimmable.slicing import Slicing
from mtvision.models.adapters.slimmable.trial import try_out
from mtvision.models.adapters.slimmable.width import Slimming
from mtvision.models.declarations import FIXED, Channels, Part, Side
from mtvision.models.declarations import timm_layers as timm_layers  # registers how they slim
from mtvision.models.declarations import timm_pyramids as timm_pyramids
from mtvision.models.declarations import timm_vits as timm_vits
from mtvision.models.declarations.reading import Rules, read_rules
from mtvision.models.declarations.torch_layers import convolution
from mtvision.models.dry_run import with_values
from mtvision.models.network import Network


@ADAPTERS.register_module()
class Slimmable(Adapter):
    """Convolutions, linear layers, norms and attention of backbone, decoder and heads get runtime widths.

    Every layer slices its input by the channels that arrive and its output by the width of its part. A part
    is a stage of the encoder or the decoder of a task. `Context.widths` holds `WidthConfig.to_plain()`;
    without it the network is the full one, bit for bit.

    Slimmable are convolutions (dense, grouped, depthwise, transposed), linear layers, batch, layer and group
    norms, and attention of torch and timm (whole heads are left out). Other modules declare how they slim
    (see `mtvision.models.declarations`). Concatenated channels are followed to the layers that read them. A
    module with parameters that declares nothing, or channels that cannot be followed, stop the build.

    Args:
        batch_norm: `universal` (shared affine; calibrate after training) or `switchable` (own affine and
            statistics for each listed width of its part).
        encoder: widths of the encoder that switchable norms know.
        decoders: widths of decoders that switchable norms know.
        slots: configurations that can have calibrated statistics at once.
        projectors: add a convolution per level for the projector distillation of `SandwichStep`.
        fixed: widths (plain data): build the plain network of this size instead, e.g. a baseline trained
            separately.

    Raises:
        ValueError: the network holds something that cannot be slimmed; the message names it.
    """

    def __init__(
        self,
        *,
        batch_norm: Literal["universal", "switchable"] = "universal",
        encoder: Sequence[Share] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        decoders: Sequence[Share] = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0),
        slots: Count = 64,
        projectors: bool = False,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_norm not in ("universal", "switchable"):
            raise ValueError(f"Slimmable: batch_norm={batch_norm!r}; choose 'universal' or 'switchable'.")
        self.switchable = batch_norm == "switchable"
        self.encoder, self.decoders = WidthConfig(tuple(encoder)).encoder, tuple(decoders)
        self.slots, self.projectors = slots, projectors
        self.fixed = None if fixed is None else WidthConfig.from_plain(fixed)

    @classmethod
    def for_tasks(
        cls, options: Mapping[str, Any], tasks: Sequence[str], absent: Collection[str]
    ) -> dict[str, Any]:
        """Without the fixed widths of absent tasks."""
        del tasks
        fixed = options.get("fixed")
        kept = without_tasks(fixed, ("decoders",), absent) if isinstance(fixed, Mapping) else fixed
        return {**options, "fixed": kept}

    def complete(self, network: Network) -> None:
        """Convert a network in place."""
        rules = read_rules(network)
        plan = make_plan(network, rules)
        control = Slimming(plan.stages, network.task_names, slots=self.slots)
        slicings = make_slicings(rules, plan, control)
        layers = {path: item for path, item in slicings.items() if item.layer is not None}
        with with_values(network) as valued:
            reads, sees = follow(valued, layers)
        replaced: dict[nn.Module, nn.Module] = {}
        for path, slicing in slicings.items():
            names = sees.get(path, frozenset())
            seen = tuple(name for name in network.task_names if name in names)
            whole = replace(
                slicing,
                reads=slicing.reads or reads.get(path, ()),
                sees=None if slicing.part.kind == "stage" or not seen else seen,
            )
            module = network.get_submodule(path)
            replaced[module] = self._converted(module, whole)
        replace_modules(network, replaced)
        network.add_module("slimming", control)
        control.counting = True  # a trial at widths that norms need not know
        try_out(network, control)
        control.counting = False
        if self.projectors:
            control.projectors = _projectors(network, control)
            network.projectors = tuple(control.projectors)
        if self.fixed is not None:
            export_in_place(network, self.fixed, fresh=True)

    def _converted(self, module: nn.Module, slicing: Slicing) -> nn.Module:
        if slicing.layer is None or not slicing.layer.normalises:
            return slice_module(module, slicing)
        listed = self.encoder if slicing.part.kind == "stage" else self.decoders
        ratios = [item for item in listed if item < 1] if isinstance(listed, tuple) else []
        return slim_batch_norm(module, slicing, ratios if self.switchable else ())


def make_slicings(rules: Rules, plan: Plan, control: Slimming) -> dict[str, Slicing]:
    """{path: slicing} of all modules that are converted.

    Raises:
        ValueError: a layer did not run in the trial pass.
    """

    def part_of(path: str) -> Part:
        return plan.parts.get(path, Part("stage"))

    slicings = {}
    for path, rule in rules.modules.items():
        if not rule.converts:
            continue
        ran = path in plan.parts or rule.said_by.keys() & {"writes", "reads"}
        if rule.layer is not None and not ran:
            raise ValueError(f"slimmable: '{path}' did not run in a trial pass; take it out of the network.")
        owner = part_of(rule.said_by.get("tensors", path))
        part = FIXED if path in plan.fixed else plan.placed(rule.part or plan.parts.get(path, owner))
        writes: tuple[Channels, ...] = ()
        reads: tuple[Channels, ...] = ()
        if rule.layer is not None and rule.layer.outputs is not None:
            said = rule.writes if "writes" in rule.said_by else part
            writes = plan.resolved(said, rule.layer.outputs, part_of(rule.said_by.get("writes", path)))
            part = writes[0].part or part
        if rule.layer is not None and "reads" in rule.said_by:
            reads = plan.resolved(rule.reads, rule.layer.inputs, part_of(rule.said_by["reads"]))

        def known(length: Any, owner: Part = owner) -> Any:
            if isinstance(length, Side):
                return length
            if isinstance(length, Channels):
                return plan.resolved_run(length, owner)
            return tuple(known(item) for item in length)

        tensors = {
            name: {axis: known(length) for axis, length in axes.items()}
            for name, axes in rule.tensors.items()
        }
        numbers = {name: known(length) for name, length in rule.numbers.items()}
        slicings[path] = Slicing(control, path, part, rule.layer, tensors, numbers, writes, reads)
    return slicings


def _projectors(network: Network, control: Slimming) -> nn.ModuleList:
    """For every level a 1x1 convolution from however many channels arrive to all of them."""
    layers = nn.ModuleList()
    for level, count in enumerate(network.backbone.channels):
        plain = nn.Conv2d(count, count, 1)
        said = convolution(plain)
        writes = (Channels(count, FIXED, DIVISOR),)
        path = f"slimming.projectors.{level}"
        layers.append(
            slice_module(plain, Slicing(control, path, FIXED, said.layer, said.tensors, said.numbers, writes))
        )
    return layers.to(next(network.parameters()).device)
