"""`check_slimmable`: what a network promises whose modules declare how they slim."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context
from mtvision.core.task import Task
from mtvision.models.adapters.slimmable import Sliced, calibrate, export, slimming_of
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.search.cost_table import count_macs, make_cost_table
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.numbers import all_finite, close_to, expect, same
from mtvision.testing.report import Report


@dataclass(frozen=True, kw_only=True)
class SlimmableCase:
    """A network with and without `Slimmable`.

    Args:
        config: of the plain network, as `build_network` takes it.
        tasks: of the network; with two or more their decoders get different widths.
        size: (H, W) of the images.
        options: of the adapter `Slimmable`.
    """

    config: Mapping[str, Any]
    tasks: Sequence[Task]
    size: tuple[int, int] = (64, 64)
    options: Mapping[str, Any]

    def build(self, *, slim: bool) -> Network:
        """A fresh network, always with the same weights."""
        config = dict(self.config)
        if slim:
            config["adapters"] = [
                *(config.get("adapters") or ()),
                {"type": "Slimmable", **self.options},
            ]
        torch.manual_seed(0)
        return build_network(copy.deepcopy(config), tuple(self.tasks))

    @cached_property
    def slim(self) -> Network:
        """The slimmable network; properties work on copies."""
        return self.build(slim=True)

    @cached_property
    def plain(self) -> Network:
        """The plain network."""
        return self.build(slim=False)

    @cached_property
    def exported(self) -> tuple[Network, Network]:
        """A slimmable network that is calibrated for `mixed`, and what is exported from it."""
        slim = copy.deepcopy(self.slim).eval()
        calibrate(slim, [self.images(4)], [self.mixed])
        return slim, export(slim, self.mixed)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks."""
        return tuple(task.name for task in self.tasks)

    @property
    def mixed(self) -> WidthConfig:
        """Widths that differ between stages and between tasks."""
        stages = tuple((0.5, 0.75, 1.0, 0.6)[index % 4] for index in range(slimming_of(self.slim).stages))
        ratios = {name: (0.25, 0.75, 0.5)[index % 3] for index, name in enumerate(self.names)}
        return WidthConfig(stages, ratios)

    def images(self, count: int) -> Tensor:
        """Some images."""
        return torch.randn(count, 3, *self.size, generator=torch.Generator().manual_seed(1))


SLIMMABLE: Battery[SlimmableCase] = Battery(
    "slimmable", "mtvision.testing.kinds.slimming.check_slimmable(config, tasks, only=['{name}'])"
)


def check_slimmable(
    config: Mapping[str, Any],
    tasks: Sequence[Task],
    *,
    size: tuple[int, int] = (64, 64),
    options: Mapping[str, Any] | None = None,
    only: Collection[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Run the properties of slimmable networks on one of them.

    Args:
        config: of the plain network, as `build_network` takes it.
        tasks: of the network.
        size: (H, W) of the images.
        options: of the adapter `Slimmable`.
        only: names of the properties to run, all by default.
        skip: {property: reason} of those that do not apply.
    """
    case = SlimmableCase(config=config, tasks=tasks, size=size, options=options or {})
    kind = config["decoder"]["type"]
    return SLIMMABLE.run(subject_of(kind), case, only=only, skip=skip)


def backward(network: Network, images: Tensor, widths: WidthConfig | None = None) -> None:
    """Gradients of a loss that reads everything that a training step reads."""
    context = None if widths is None else Context(widths=widths.to_plain())
    output = network.outputs(images, context=context)
    maps = [*output.logits.values(), *(item.logits for item in output.auxiliary)]
    losses = [item.square().mean() for item in maps] + list(network.auxiliary_losses().values())
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]


@SLIMMABLE.property("network.named_parameters(), without and with dict(type='Slimmable')")
def full_width_is_plain(case: SlimmableCase) -> None:
    """At full width, logits and gradients are those of the plain network to the last bit."""
    plain, slim = copy.deepcopy(case.plain).train(), copy.deepcopy(case.slim).train()
    for network in (plain, slim):
        torch.manual_seed(3)
        backward(network, case.images(2))
    ours = dict(slim.named_parameters())
    for name, item in plain.named_parameters():
        wanted, found = item.grad, ours[name].grad
        expect((wanted is None) == (found is None), f"{name}: only one of both has a gradient.")
        if wanted is not None and found is not None:
            same(found, wanted, f"gradient of {name}")
    expected = plain.eval()(case.images(2))
    for name, logits in slim.eval()(case.images(2)).items():
        same(logits, expected[name], f"logits of {name}")


@SLIMMABLE.property("set(slimmable.state_dict()) ^ set(plain.state_dict())")
def state_keeps_its_names(case: SlimmableCase) -> None:
    """The plain network's state loads into the slimmable one, and the slimmable one's into another."""
    state = case.slim.state_dict()
    for name, item in case.plain.state_dict().items():
        expect(name in state and state[name].shape == item.shape, f"{name}: missing or of another shape.")
    other = copy.deepcopy(case.slim)
    with torch.no_grad():
        for item in other.parameters():
            item.zero_()
    other.load_state_dict(state)
    for name, item in case.slim.named_parameters():
        same(dict(other.named_parameters())[name], item, name)


@SLIMMABLE.property("export(network, widths)(image), network(image, context=Context(widths=...))")
def export_equals_slimmed(case: SlimmableCase) -> None:
    """The exported network is plain, smaller, and gives what the slimmed one gives."""
    slim, plain = case.exported
    slimmed = slim(case.images(2), context=Context(widths=case.mixed.to_plain()))
    for name, logits in plain(case.images(2)).items():
        close_to(logits, slimmed[name], f"logits of {name}", tolerance=3e-6)
    left = [name for name, item in plain.named_modules() if isinstance(item, Sliced)]
    expect(not left, f"still sliced: {', '.join(left[:3])}.")
    sizes = [sum(item.numel() for item in network.parameters()) for network in (plain, slim)]
    expect(sizes[0] < 0.9 * sizes[1], f"{sizes[0]} of {sizes[1]} parameters are left at {case.mixed}.")


@SLIMMABLE.property("build_network(exported.architecture, tasks)")
def export_can_be_rebuilt(case: SlimmableCase) -> None:
    """Config and state dict of the exported network rebuild it."""
    plain = case.exported[1]
    rebuilt = build_network(json.loads(json.dumps(plain.architecture)), tuple(case.tasks))
    rebuilt.load_state_dict(plain.state_dict())
    for name, logits in rebuilt.eval()(case.images(2)).items():
        same(logits, plain(case.images(2))[name], f"logits of {name}")


@SLIMMABLE.property("[(name, item.grad) for name, item in network.named_parameters()]")
def gradients_stay_inside_the_slice(case: SlimmableCase) -> None:
    """A slimmed pass gives gradients to what is exported, and to no more."""
    slim = copy.deepcopy(case.slim).train()
    backward(slim, case.images(4), case.mixed)
    exported = dict(case.exported[1].named_parameters())
    narrowed = 0
    for name, item in slim.named_parameters():
        if item.grad is None:
            continue
        all_finite([(f"gradient of {name}", item.grad)])
        touched = int((item.grad != 0).sum())
        expect(
            touched <= exported[name].numel(),
            f"{name}: {touched} entries have a gradient, {exported[name].numel()} are exported.",
        )
        narrowed += exported[name].numel() < item.numel()
    expect(narrowed > 10, f"only {narrowed} parameters with a gradient became smaller.")


@SLIMMABLE.property("make_cost_table(network, size, (.5,), (.5,)).cost(widths)")
def predicted_cost_is_counted(case: SlimmableCase) -> None:
    """A table of costs predicts the multiply-accumulates of configurations that it was not made from."""
    table = make_cost_table(case.slim, case.size, (0.5,), (0.5,))
    stages = slimming_of(case.slim).stages
    own = {name: (0.5, 1.0)[index % 2] for index, name in enumerate(case.names)}
    for widths in (
        WidthConfig(0.5, dict.fromkeys(case.names, 0.5)),
        WidthConfig(1.0, dict.fromkeys(case.names, 0.5)),
        WidthConfig(tuple((0.5, 1.0)[index % 2] for index in range(stages)), own),
    ):
        counted, predicted = count_macs(case.slim, case.size, widths)["total"], table.cost(widths)
        expect(
            abs(counted - predicted) <= 1e-3 * counted, f"{widths}: {predicted} predicted, {counted} counted."
        )
