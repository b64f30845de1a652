"""`Slimmable`: makes the layers of a finished network slimmable, whatever its classes are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from mtvision.architecture.widths import WidthConfig
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import without_tasks
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.slimmable.attention import COMPOSITES, become
from mtvision.models.adapters.slimmable.batch_norm import slim_batch_norm
from mtvision.models.adapters.slimmable.export import export_in_place
from mtvision.models.adapters.slimmable.layout import follow
from mtvision.models.adapters.slimmable.operators import CONVERSIONS, SlimConv2d
from mtvision.models.adapters.slimmable.plan import Plan, make_plan
from mtvision.models.adapters.slimmable.suite import DECLARED, REFUSED
from mtvision.models.adapters.slimmable.trial import try_out
from mtvision.models.adapters.slimmable.width import DIVISOR, FIXED, Part, Slicing, Slimming
from mtvision.models.network import Network


@ADAPTERS.register_module()
class Slimmable(Adapter):
    """Convolutions, linear layers, norms and attention of backbone, decoder and heads get runtime widths.

    Every layer slices its input by the channels that arrive and its output by the width of its part: the
    stage of the encoder, or the decoder of its task. `Context.widths` holds `WidthConfig.to_plain()`; without
    it the network is the full one, bit for bit.

    Slimmable: convolutions (dense, grouped, depthwise), transposed convolutions, linear layers, batch, layer
    and group norms, timm's attention (ViT, Swin; whole heads are left out), patch merging and expanding, and
    what the suite's decoders add (see `suite`). Concatenated channels are followed to the layers that read
    them. Whatever else has parameters, and what cannot be followed, is refused when the network is built.

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
        encoder: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        decoders: Sequence[float] = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0),
        slots: int = 64,
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
        if not isinstance(fixed, Mapping):
            return dict(options)
        return {**options, "fixed": without_tasks(fixed, ("decoders",), absent)}

    def complete(self, network: Network) -> None:
        """Convert a network in place."""
        for path, module in network.named_modules():
            for kind, reason in REFUSED.items():
                if isinstance(module, kind):
                    raise ValueError(
                        f"slimmable: '{path}' is a {type(module).__name__}, which cannot be slimmed: "
                        f"{reason}. Choose another backbone and decoder."
                    )
        plan = make_plan(network)
        control = Slimming(plan.stages, network.task_names, slots=self.slots)
        make = _maker(control, plan)
        declared = [path for path, item in network.named_modules() if type(item) in DECLARED]
        special = _composites(network, plan, make)
        slicings: dict[str, Slicing] = {}
        for path, module in network.named_modules():
            if path in special or next(module.parameters(recurse=False), None) is not None:
                part = FIXED if path in plan.fixed else plan.parts.get(path)
                slicings[path] = special.get(path) or make(part or FIXED)
        followed = follow(network, slicings, declared)
        for path, slicing in slicings.items():
            inputs = slicing.inputs or followed.inputs.get(path, ())
            sees = followed.sees.get(path)
            names = None if not sees else tuple(name for name in network.task_names if name in sees)
            whole = replace(slicing, inputs=inputs, sees=names if slicing.part.kind != "stage" else None)
            ran = path in plan.parts or path in special
            self._convert(path, network.get_submodule(path), whole, ran=ran)
        network.add_module("slimming", control)
        control.counting = True  # a trial at widths that norms need not know
        try_out(network, control, followed, declared)
        control.counting = False
        if self.projectors:
            control.projectors = _projectors(network, control)
        if self.fixed is not None:
            export_in_place(network, self.fixed, fresh=True)

    def _convert(self, path: str, module: nn.Module, slicing: Slicing, *, ran: bool) -> None:
        if type(module) in COMPOSITES or hasattr(module, "slicing"):
            return
        if isinstance(module, nn.ParameterDict) and ran:
            return  # its owner slices what it holds
        if not ran:
            raise ValueError(f"slimmable: '{path}' did not run in a trial pass; take it out of the network.")
        if isinstance(module, nn.BatchNorm2d):
            listed = self.encoder if slicing.part.kind == "stage" else self.decoders
            ratios = [item for item in listed if item < 1] if isinstance(listed, tuple) else []
            slim_batch_norm(module, slicing, ratios if self.switchable else ())
            return
        kind = CONVERSIONS.get(type(module))
        if kind is None or getattr(module, "padding_mode", "zeros") != "zeros":
            known = sorted({item.__name__ for item in (*CONVERSIONS, *COMPOSITES)} | {"BatchNorm2d"})
            raise ValueError(
                f"slimmable: '{path}' is a {type(module).__name__}, which cannot be slimmed. Slimmable are "
                f"{', '.join(known)}. Choose a backbone, decoder or head made of these."
            )
        become(module, kind, slicing)


def _maker(control: Slimming, plan: Plan) -> Callable[..., Slicing]:
    def make(part: Part, **options: Any) -> Slicing:
        return Slicing(control, part, **{"divisor": plan.divisors.get(part, DIVISOR), **options})

    return make


def _composites(network: Network, plan: Plan, make: Callable[..., Slicing]) -> dict[str, Slicing]:
    """Slicings of the children of modules that lay out channels in their own way."""
    special: dict[str, Slicing] = {}
    for path, module in list(network.named_modules()):
        rule = COMPOSITES.get(type(module))
        if rule is not None:
            part = plan.parts.get(path, Part("stage"))
            for child, slicing in rule(module, make, part).items():
                special[f"{path}.{child}"] = slicing
    return special


def _projectors(network: Network, control: Slimming) -> nn.ModuleList:
    """For every level a 1x1 convolution from however many channels arrive to all of them."""
    layers = nn.ModuleList(nn.Conv2d(count, count, 1) for count in network.backbone.channels)
    for layer in layers:
        layer.__class__ = SlimConv2d
        layer.slicing = Slicing(control, FIXED)  # type: ignore[assignment]
    return layers.to(next(network.parameters()).device)
