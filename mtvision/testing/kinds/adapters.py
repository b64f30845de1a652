"""`check_adapter`: what every adapter promises, shown on a small network that `build_network` makes."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import ADAPTERS, BACKBONES
from mtvision.core.task import Task
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.report.cost import measure_cost
from mtvision.testing import modules
from mtvision.testing.battery import Battery
from mtvision.testing.composition import COMPOSITION
from mtvision.testing.inputs import ToyBackbone, random_image, toy_tasks
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import all_finite, expect
from mtvision.testing.report import NotApplicable, Report

PLAIN_BACKBONE: Mapping[str, Any] = {"type": ToyBackbone}
PLAIN_DECODER: Mapping[str, Any] = {"type": "ParallelDecoder", "width": 8}
PLAIN_HEAD: Mapping[str, Any] = {"type": "ConvHead", "hidden": 8}


@dataclass(frozen=True, kw_only=True)
class AdapterCase:
    """An adapter in a network.

    Args:
        make: the adapter's class, or its registered name.
        setting: device and precision.
        options: the rest of the adapter's config.
        before: adapters that stand before it.
        backbone: config of the backbone.
        decoder: config of the decoder.
        decoders: configs of further decoders that it is tried with.
        head: config of the head of every task.
        tasks: of the network.
        size: (H, W) of the images.
        odd_size: (H, W) that no stride divides.
        identity_at_start: whether fresh maps are those of the plain backbone for every task.
        drops: patterns of the backbone's parameters that the adapter removes or changes.
        dead: patterns of parameter names that no gradient reaches by design.
        passes: training passes per start after which a parameter may count as dead; more for adapters that
            sample.
    """

    make: type[Adapter] | str
    setting: Setting = field(default_factory=Setting)
    options: Mapping[str, Any] = field(default_factory=dict)
    before: Sequence[Mapping[str, Any]] = ()
    backbone: Mapping[str, Any] = field(default_factory=lambda: dict(PLAIN_BACKBONE))
    decoder: Mapping[str, Any] = field(default_factory=lambda: dict(PLAIN_DECODER))
    decoders: Sequence[Mapping[str, Any]] = ()
    head: Mapping[str, Any] = field(default_factory=lambda: dict(PLAIN_HEAD))
    tasks: Sequence[Task] = field(default_factory=toy_tasks)
    size: tuple[int, int] = (64, 96)
    odd_size: tuple[int, int] = (53, 75)
    identity_at_start: bool = False
    drops: Collection[str] = ()
    dead: Collection[str] = ()
    passes: int = 1

    @property
    def entry(self) -> dict[str, Any]:
        """The adapter's config entry."""
        return {"type": self.make, **self.options}

    def config(self, *, adapted: bool = True) -> dict[str, Any]:
        """Config of the network, with or without the adapter."""
        adapters = [*self.before, *([self.entry] if adapted else [])]
        parts = {"backbone": self.backbone, "decoder": self.decoder, "head": self.head}
        return copy.deepcopy({**parts, "adapters": adapters})

    def build(self) -> Network:
        """A fresh network on the device."""
        return self.setting.module(build_network(self.config(), tuple(self.tasks)))

    def plain_and_adapted(self) -> tuple[Backbone, Backbone, dict[str, Tensor]]:
        """A backbone of equal weights without and with the adapter, and the plain one's parameters."""
        plain = BACKBONES.build(self.config()["backbone"])
        for item in self.before:
            plain = ADAPTERS.build(dict(item)).apply(plain, tuple(self.tasks))
        plain = modules.disturb(self.setting.module(plain)).eval()
        values = {name: item.detach().clone() for name, item in plain.named_parameters()}
        adapted = ADAPTERS.build(self.entry).apply(copy.deepcopy(plain), tuple(self.tasks))
        return plain, self.setting.module(adapted).eval(), values

    @cached_property
    def network(self) -> Network:
        """Disturbed, in evaluation mode; properties leave it as it is."""
        return modules.disturb(self.build()).eval()

    @cached_property
    def image(self) -> Tensor:
        """Three images."""
        return self.setting.tensor(random_image(3, self.size))

    def run(self, network: nn.Module, image: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Logits in the setting's precision, without graph."""
        with torch.no_grad(), self.setting.autocast():
            logits: dict[str, Tensor] = network(image, tasks)
        return logits

    @cached_property
    def whole(self) -> dict[str, Tensor]:
        """Logits of all tasks."""
        return self.run(self.network, self.image)


ADAPTER: Battery[AdapterCase] = Battery("adapter", "mtvision.testing.check_adapter(make, only=['{name}'])")


def check_adapter(
    make: type[Adapter] | str,
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of adapters on one of them.

    Args:
        make: the adapter's class, or its registered name.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("adapter")` lists them.
        device: where to run.
        dtype: `float32` or `float64`; `bfloat16` and `float16` run under autocast.
        case: fields of `AdapterCase`: `options`, `backbone`, `decoder`, `identity_at_start`, `drops`, ...

    >>> from mtvision.models.adapters.adapter import Adapter
    >>> from mtvision.testing import check_adapter
    >>> class Nothing(Adapter):
    ...     '''Leaves the network as it is.'''
    >>> check_adapter(Nothing, identity_at_start=True, only=["identity_at_start", "keeps_parameters"]).ok
    True
    """
    name = make if isinstance(make, str) else make.__qualname__
    made = AdapterCase(make=make, setting=Setting(device, dtype), **case)
    return ADAPTER.run(name, made, only=only, skip=skip)


def _maps(pyramid: Pyramid, name: str) -> dict[str, Tensor]:
    return {f"level {level}": item for level, item in enumerate(pyramid.for_task(name).maps)}


@ADAPTER.property("adapter.apply(backbone, tasks).channels; adapted(image).for_task(name).maps")
def keeps_the_backbone_contract(case: AdapterCase) -> None:
    """The result is a backbone whose channels and strides are those that come out, for every task."""
    _, adapted, _ = case.plain_and_adapted()
    expect(isinstance(adapted, Backbone), f"apply returns a {type(adapted).__name__}, expected a Backbone.")
    with torch.no_grad(), case.setting.autocast():  # pyramids may compute a task's maps when they are read
        pyramid = adapted(case.image)
        own_maps = {task.name: pyramid.for_task(task.name) for task in case.tasks}
    for name, own in own_maps.items():
        expect(
            own.channels == tuple(adapted.channels) and own.strides == tuple(adapted.strides),
            f"'{name}': channels {own.channels} and strides {own.strides} come out, "
            f"{tuple(adapted.channels)} and {tuple(adapted.strides)} are declared.",
        )
        all_finite(_maps(own, name).items())


@ADAPTER.property("dict(backbone.named_parameters()) before; dict(adapted.named_parameters()) after")
def keeps_parameters(case: AdapterCase) -> None:
    """Every parameter of the backbone is in the result with its value, unless declared in `drops`."""
    _, adapted, values = case.plain_and_adapted()
    there = [item.detach() for item in (*adapted.parameters(), *adapted.buffers())]
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for item in there:
        by_shape.setdefault(item.shape, []).append(item)
    lost = [
        name
        for name, value in values.items()
        if not any(torch.equal(value, item) for item in by_shape.get(value.shape, []))
    ]
    silent = [name for name in lost if not any(fnmatchcase(name, glob) for glob in case.drops)]
    expect(not silent, f"{len(silent)} parameters are lost or changed, the first: {silent[:5]}.")
    stale = [glob for glob in case.drops if not any(fnmatchcase(name, glob) for name in lost)]
    expect(not stale, f"drops={stale} is declared, but these parameters are kept.")


@ADAPTER.property("adapted(image).for_task(name).maps against backbone(image).maps")
def identity_at_start(case: AdapterCase) -> None:
    """A fresh adapter leaves every task the maps of the plain backbone, if it declares so."""
    if not case.identity_at_start:
        raise NotApplicable("identity_at_start=False: a fresh adapter changes the maps.")
    plain, adapted, _ = case.plain_and_adapted()
    with torch.no_grad(), case.setting.autocast():
        pyramids = plain(case.image), adapted(case.image)
        maps = {task.name: [_maps(item, task.name) for item in pyramids] for task in case.tasks}
    for name, (want, found) in maps.items():
        modules.agree(found, want, f"'{name}':", case.setting.dtype)


@ADAPTER.property("network.architecture; json.dumps(network.architecture)")
def architecture_is_plain_data(case: AdapterCase) -> None:
    """Config and architecture are data that JSON keeps, and building leaves the config as it is."""
    given, kept = case.config(), case.config()
    architecture = build_network(given, tuple(case.tasks)).architecture
    expect(str(given) == str(kept), "build_network changed the config that it was given.")
    again = json.loads(json.dumps(architecture))
    expect(_plain(again) == _plain(architecture), f"JSON changes the architecture to {again}.")


def _plain(value: Any) -> Any:
    """Tuples as lists: JSON has only these."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@ADAPTER.property("build_network(network.architecture, tasks).load_state_dict(state, strict=True)")
def round_trip(case: AdapterCase) -> None:
    """Architecture and saved state rebuild the network; it then gives the same logits to the bit."""
    architecture = json.loads(json.dumps(case.network.architecture))
    fresh = case.setting.module(build_network(architecture, tuple(case.tasks))).eval()
    modules.reload(case.network, fresh)
    modules.agree_exactly(case.run(fresh, case.image), case.whole, "rebuilt network:")


@ADAPTER.property("network(image, tasks=['depth']) against network(image)")
def subset_equals_whole(case: AdapterCase) -> None:
    """A task alone gives the same logits as among all."""
    for name in case.whole:
        found = case.run(case.network, case.image, [name])
        modules.agree(found, {name: case.whole[name]}, f"tasks=['{name}']:", case.setting.dtype)


@ADAPTER.property("network(image[:1]) against the first sample of network(image)")
def batch_of_one(case: AdapterCase) -> None:
    """One image gives what it gives in a batch."""
    found = case.run(case.network, case.image[:1])
    modules.agree(found, {n: item[:1] for n, item in case.whole.items()}, "one image:", case.setting.dtype)


@ADAPTER.property("network(torch.randn(1, 3, *odd_size))")
def odd_sizes(case: AdapterCase) -> None:
    """An image whose sides no stride divides gives finite logits of its size."""
    found = case.run(case.network, case.setting.tensor(random_image(1, case.odd_size)))
    all_finite(found.items())
    for name, item in found.items():
        expect(
            tuple(item.shape[-2:]) == case.odd_size,
            f"'{name}': logits of {tuple(item.shape[-2:])} for an image of {case.odd_size}.",
        )


@ADAPTER.property("change image[1] and compare network(image)['depth'][0]")
def samples_are_independent(case: AdapterCase) -> None:
    """In evaluation mode no image of a batch changes another's logits."""

    def output(image: Tensor) -> dict[str, Tensor]:
        with case.setting.autocast():
            logits: dict[str, Tensor] = case.network(image)
        return logits

    modules.check_independence(output, case.image)


@ADAPTER.property("with torch.autocast(device, torch.bfloat16): network(image)")
def bfloat16_is_close(case: AdapterCase) -> None:
    """Under autocast with bfloat16 logits differ from full precision by rounding alone."""
    modules.check_bfloat16(case.setting, lambda: case.network(case.image))


@ADAPTER.property("network.to(memory_format=torch.channels_last)(image in channels_last)")
def channels_last_is_equal(case: AdapterCase) -> None:
    """The memory format of weights and images changes nothing."""
    last = torch.channels_last
    network = case.build().eval()
    network.load_state_dict(case.network.state_dict())
    found = case.run(network.to(memory_format=last), case.image.to(memory_format=last))  # type: ignore[call-overload]
    modules.agree(found, case.whole, "channels last:", case.setting.dtype)


@ADAPTER.property("[n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]")
def gradients_reach_every_parameter(case: AdapterCase) -> None:
    """Logits, deep supervision and regularisers reach every trainable parameter that is not declared dead."""

    def loss(network: Network, number: int) -> Tensor:
        terms: list[Tensor] = []
        network.train()
        for index in range(case.passes):
            image = case.setting.tensor(random_image(3, case.size, number * case.passes + index + 1))
            with case.setting.autocast():
                output = network.outputs(image)
            maps = [*output.logits.values(), *(item.logits for item in output.auxiliary)]
            terms += [(item.float() * torch.randn_like(item.float())).sum() for item in maps]
        return torch.stack([*terms, *network.auxiliary_losses().values()]).sum()

    idle = modules.idle_parameters(lambda: modules.disturb(case.build()), loss)
    modules.check_idle(idle, case.dead)


@ADAPTER.property("network.eval()(image) twice; network.state_dict() before and after")
def evaluation_is_deterministic(case: AdapterCase) -> None:
    """Two passes in evaluation mode are equal to the bit and leave the state as it is."""
    before = copy.deepcopy(case.network.state_dict())
    modules.agree_exactly(case.run(case.network, case.image), case.whole, "second pass:")
    after = case.network.state_dict()
    kept = {name: item for name, item in after.items() if isinstance(item, Tensor)}
    modules.agree_exactly(kept, {name: before[name] for name in kept}, "state after a pass:")


@ADAPTER.property("copy.deepcopy(network); pickle.loads(pickle.dumps(network))")
def copies_are_equal(case: AdapterCase) -> None:
    """Deep copies and pickles give the same logits and share no parameter."""
    for way, other in modules.copies(case.network).items():
        modules.agree_exactly(case.run(other, case.image), case.whole, f"{way}:")


@ADAPTER.property("torch.export.export(network, (image,), strict=False)")
def exportable(case: AdapterCase) -> None:
    """`torch.export` traces the network, and the program gives the same logits."""
    with torch.no_grad():
        want = case.network(case.image)
    modules.check_export(case.network, (case.image,), want, case.setting.real)


@ADAPTER.property("measure_cost(network, size)['macs']; measure_cost(network, size, meta=True)['macs']")
def cost_is_counted(case: AdapterCase) -> None:
    """Multiply-accumulates are counted; on the meta device they are the same, unless a pass reads values."""
    network = copy.deepcopy(case.network).float()
    real = measure_cost(network, case.size)["macs"]["total"]
    try:
        meta = measure_cost(network, case.size, meta=True)["macs"]["total"]
    except RuntimeError as error:  # a search looks up what it has learned
        expect("meta tensor" in str(error), f"without values: {error}")
        meta = real
    expect(real == meta > 0, f"{real:,} multiply-accumulates are counted with values, {meta:,} without.")


for _look, _check in COMPOSITION:
    ADAPTER.property(_look)(_check)
